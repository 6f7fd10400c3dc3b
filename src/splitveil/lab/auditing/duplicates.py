"""Private images that the adversary holds, exactly or nearly."""

import hashlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from splitveil.lab.data.base import Array
from splitveil.lab.images import as_floats

SIDE, COARSE = 32, 16
"""Larger images are averaged down to this many pixels a side; candidates are looked for at the second."""
ALIKE, ALIKE_BLURRED, ALIKE_DETAIL = 0.99, 0.996, 0.98
"""Correlations from which two images are near-duplicates: as they are, or blurred and in what is left of detail then.

With these, none of 200 images of CIFAR-10, MNIST, Fashion-MNIST and the small digits has one among 10,000 others (with
0.995 and 0.97, 5 garments of one cut have); of blurred copies 65 of 100 are found in Fashion-MNIST and 77 in CIFAR-10
(14 and 48 without blurring both), of copies that were mirrored and moved by a pixel 100 in CIFAR-10.
"""
LIKELY, CANDIDATES = 0.5, 8
"""Coarse correlation from which a pair is looked at closely, and how many pairs of one private image at most."""
BLUR = 1.0
"""Standard deviation in pixels of the blur that both images get, so that focus and compression count little."""
PLAIN, FAINT = 0.02, 0.005
"""Standard deviation of the pixels, and of their detail, below which an image shows too little to be recognised."""
CHUNK = 256


def copies(private: Array, aux: Array) -> int:
    """Private images whose pixels are among the adversary's. private: (N, C, H, W), aux: (M, C, H, W), uint8."""
    held = {hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in aux}
    return sum(hashlib.blake2b(image.tobytes(), digest_size=16).digest() in held for image in private)


def near_duplicates(private: Array, aux: Array) -> int:
    """Private images that are nearly one of the adversary's: moved a little, mirrored, in another light or focus.

    Both are averaged down to 32 pixels a side. For each private image, and for its mirror image, the candidates that
    correlate best at half of that are held against it at every shift up to a sixteenth of the side, brightness and
    contrast apart: the pixels that both then show must correlate by at least 0.99, or by 0.996 after a blur and by
    0.98 in the detail that it leaves (our reading of "near").

    Args:
        private: (N, C, H, W) uint8.
        aux: (M, C, H, W) uint8.
    """
    known = torch.from_numpy(aux)
    coarse = torch.cat([_directions(_seen(part), COARSE) for part in known.split(1024)])
    found = 0
    for part in torch.from_numpy(private).split(CHUNK):
        sharp = _shrunk(part)
        near = torch.zeros(len(part), dtype=torch.bool)
        for images in (sharp, sharp.flip(-1)):
            likeness, place = (_directions(_blurred(images), COARSE) @ coarse.T).topk(min(CANDIDATES, len(known)), 1)
            whose, which = (likeness >= LIKELY).nonzero(as_tuple=True)
            others = known[place[whose, which]]
            for some, own in zip(whose.split(CHUNK), others.split(CHUNK), strict=True):
                near[some[_alike(images[some], _shrunk(own))]] = True
        found += int(near.sum())
    return found


def _alike(one: Tensor, other: Tensor) -> Tensor:
    """Whether two images are near at some shift; (n, C, H, W) each -> (n,)."""
    found = torch.zeros(len(one), dtype=torch.bool)
    soft, other_soft = _blurred(one), _blurred(other)
    detail, other_detail = (images - _blurred(_blurred(_blurred(images))) for images in (soft, other_soft))
    for rows, back_rows in _shifts(one.shape[2]):
        for columns, back_columns in _shifts(one.shape[3]):
            here, there = (..., rows, columns), (..., back_rows, back_columns)
            found |= _likeness(one[here], other[there]) >= ALIKE
            found |= (_likeness(soft[here], other_soft[there]) >= ALIKE_BLURRED) & (
                _likeness(detail[here], other_detail[there], FAINT) >= ALIKE_DETAIL
            )
    return found


def _shifts(side: int) -> Iterator[tuple[slice, slice]]:
    """What two images of so many pixels both show, for each shift."""
    for by in range(-(side // 16), side // 16 + 1):
        yield slice(max(by, 0), side + min(by, 0)), slice(max(-by, 0), side - max(by, 0))


def _likeness(one: Tensor, other: Tensor, plain: float = PLAIN) -> Tensor:
    """Correlation over pixels and colours: (n, C, h, w) each -> (n,); 0 where one shows next to nothing."""
    return (_unit(one, plain) * _unit(other, plain)).sum(1)


def _unit(images: Tensor, plain: float = PLAIN) -> Tensor:
    """(n, D) of unit length and mean 0; zeros for an image that is nearly of one colour."""
    flat = images.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    length = flat.norm(dim=1, keepdim=True)
    return torch.where(length > plain * flat.shape[1] ** 0.5, flat / length.clamp_min(1e-12), 0.0)


def _directions(images: Tensor, side: int) -> Tensor:
    """(n, C, H, W) -> (n, D), see `_unit`, averaged down to `side`."""
    return _unit(F.adaptive_avg_pool2d(images, (min(side, images.shape[2]), min(side, images.shape[3]))))


def _seen(x: Tensor) -> Tensor:
    """(n, C, H, W) uint8 -> floats, small and blurred."""
    return _blurred(_shrunk(x))


def _shrunk(x: Tensor) -> Tensor:
    images = as_floats(x)
    return F.adaptive_avg_pool2d(images, (min(SIDE, x.shape[2]), min(SIDE, x.shape[3])))


def _blurred(images: Tensor) -> Tensor:
    """By a Gaussian, in proportion to the side, so that small images keep what they show."""
    for axis in (2, 3):
        width = BLUR * images.shape[axis] / SIDE
        reach = round(2.5 * width)
        if not reach:
            continue
        taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / width).square())
        taps = (taps / taps.sum()).to(images)
        shape = [1, 1, 1, 1]
        shape[axis] = len(taps)
        channels = images.shape[1]
        padding = [reach if axis == 3 else 0] * 2 + [reach if axis == 2 else 0] * 2
        padded = F.pad(images, padding, mode="replicate")
        images = F.conv2d(padded, taps.reshape(shape).expand(channels, *shape[1:]), groups=channels)
    return images
