"""Channels one by one: what each tells of the class, what each tells of the image, and a choice among them."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.accelerator import Accelerator

GRID = 2
"""Fields a side that a channel's map is averaged over before its class is asked for."""
KNOWN = 0.75
"""Share of the images that a reconstruction learns from; it is rated on the others."""
WINDOW = 3
"""Positions a side that one patch of the image is guessed from."""
RIDGE = 1e-3
"""Added to the normal equations, relative to their mean diagonal."""
LARGEST = 8
"""Pixels a side of a patch; larger ones are guessed at a lower resolution."""
EXACT = 1e-10
"""Mean squared error that counts as none: 100 dB."""
ROOM = 2**24
"""Numbers that are unfolded at once."""


class Selection(nn.Module):
    """Sends some channels only, in an order of its own. (N, C, ...) -> (N, keep, ...).

    Args:
        index: (keep,), which channels. It is state of the edge half and travels with that alone.
    """

    index: Tensor

    def __init__(self, index: Tensor) -> None:
        super().__init__()
        self.register_buffer("index", index.long().clone())

    def forward(self, z: Tensor) -> Tensor:
        return z.index_select(1, self.index)


def fisher_utility(z: Tensor, y: Tensor, *, grid: int = GRID) -> Tensor:
    """What each channel tells of the class: Fisher's discriminant ``tr(S_W^-1 S_B)`` (PrivyNet, arXiv 1709.06161).

    A channel's map is averaged over `grid` x `grid` fields (our reading; the paper leaves the vector open); S_W and S_B
    are the scatter of those within and between classes, both over M. With one field it is the ratio of the variances
    between and within classes. Channels of another scale have the same utility, dead ones have 0.

    Args:
        z: (M, C, h, w), or (M, C), where a channel is one number.
        y: (M,).
        grid: fields a side, no more than the map has positions.

    Returns:
        (C,), float64 where the device has it.
    """
    maps = _maps(z)
    pooled = F.adaptive_avg_pool2d(maps, (min(grid, maps.shape[2]), min(grid, maps.shape[3])))
    v = pooled.to(Accelerator.of(z).exact).flatten(2).transpose(0, 1)
    v = v - v.mean(1, keepdim=True)
    members = F.one_hot(y.long()).to(v)
    members = members[:, members.sum(0) > 0]
    centres = torch.einsum("cmf,mk->ckf", v, members) / members.sum(0)[None, :, None]
    inside = v - torch.einsum("ckf,mk->cmf", centres, members)
    within = inside.transpose(1, 2) @ inside / len(y)
    between = torch.einsum("ckf,cke,k->cfe", centres, centres, members.mean(0))
    found: Tensor = torch.linalg.solve(_ridged(within, within + between, 1e-6), between)
    utility: Tensor = found.diagonal(dim1=1, dim2=2).sum(1)
    return utility


def reconstruction_privacy(z: Tensor, x: Tensor) -> Tensor:
    """What each channel tells of the image by itself: PSNR in dB of a reconstruction from that channel alone.

    Where PrivyNet trains a net for every channel, this is a ridge regression in closed form (our reading): the patch of
    the image at each position of the map from 3 x 3 positions about it, one weight for all positions, the mean image
    given. Learned from three quarters of the images, rated on the others: mean of the images' PSNR.

    Args:
        z: (M, C, h, w), or (M, C), from which the whole image is guessed.
        x: (M, C, H, W) in [0, 1], brought to a multiple of the map's size.

    Returns:
        (C,), float64 where the device has it; higher tells more.

    Raises:
        InputError: fewer than 8 images.
    """
    if len(x) < 8:
        raise InputError(f"expected 8 images or more, got {len(x)}; give more of the training images.")
    maps = _maps(z)
    height, width = maps.shape[2:]
    rows, columns = (min(LARGEST, math.ceil(n / m)) for n, m in zip(x.shape[2:], (height, width), strict=True))
    sized = F.interpolate(x.float(), (height * rows, width * columns), mode="bilinear", antialias=True)
    patches = F.unfold(sized, (rows, columns), stride=(rows, columns))
    known, kind = int(KNOWN * len(x)), Accelerator.of(z).exact
    # Relative to each channel's own size, so that float32 serves channels of any scale.
    maps = maps - maps[:known].mean(0)
    maps = maps / maps[:known].square().mean((0, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
    patches = patches - patches[:known].mean(0)
    gram: Tensor = torch.zeros(())
    crossed: Tensor = torch.zeros(())
    for near, wanted in _parts(maps[:known], patches[:known]):
        gram = gram + (near @ near.transpose(2, 3)).to(kind).sum(0)
        crossed = crossed + (near @ wanted).to(kind).sum(0)
    weights = torch.linalg.solve(_ridged(gram, gram, RIDGE), crossed).transpose(1, 2).float()
    told = []
    for near, wanted in _parts(maps[known:], patches[known:]):
        error = (weights @ near - wanted.transpose(2, 3)).square().mean((2, 3)).to(kind)
        told.append(-10 * error.clamp_min(EXACT).log10())
    return torch.cat(told).mean(0)


def _maps(z: Tensor) -> Tensor:
    """Channels as maps: (M, C, h, w), one position where a channel is a number."""
    if z.ndim not in (2, 4):
        raise InputError(f"expected maps (M, C, h, w) or numbers (M, C), got {tuple(z.shape)}; cut at a convolution.")
    return (z if z.ndim == 4 else z[:, :, None, None]).detach().float()


def _parts(maps: Tensor, patches: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """A few images at a time: (n, C, f, l), the f positions about each of l, and their patches (n, 1, l, p)."""
    window = WINDOW if maps.shape[2] * maps.shape[3] > 1 else 1
    channels, (pixels, positions) = maps.shape[1], patches.shape[1:]
    portion = max(1, ROOM // (channels * max(window**2, pixels) * positions))
    for some, wanted in zip(maps.split(portion), patches.split(portion), strict=True):
        near = F.unfold(some, window, padding=window // 2).unflatten(1, (channels, window**2))
        yield near, wanted[:, None].transpose(2, 3)


def _ridged(matrix: Tensor, sized: Tensor, share: float) -> Tensor:
    """Each of (C, f, f) plus `share` of the mean diagonal of `sized`; never singular."""
    size = sized.diagonal(dim1=-2, dim2=-1).mean(-1)
    size = torch.where(size > 0, share * size, 1.0)
    return matrix + size[:, None, None] * torch.eye(matrix.shape[-1]).to(matrix)
