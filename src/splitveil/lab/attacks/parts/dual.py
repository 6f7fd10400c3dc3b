"""Dense ridge regression in its dual form: as many unknowns as there are images, however many features."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from splitveil.lab.accelerator import Accelerator
from splitveil.lab.attacks.parts.ridge import ridge_weights

PENALTIES = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
"""In units of the mean square of an image's features, in rising order until one is worse than the one before."""
MOST = 4096
"""Images that the map rests on at most."""
DEAD = 1e-6

Read = Callable[[Tensor], tuple[Tensor, Tensor]]


class DenseInverse(nn.Module):
    """An affine map from all features to all pixels. z: (N, *cut) -> (N, C, H, W).

    Args:
        shift, scale: (D,), to units of each feature's own spread.
        weight: (D, pixels).
        mean: (C, H, W), the mean image.
    """

    def __init__(self, shift: Tensor, scale: Tensor, weight: Tensor, mean: Tensor) -> None:
        super().__init__()
        for name, value in (("shift", shift), ("scale", scale), ("weight", weight), ("mean", mean)):
            self.register_buffer(name, value)

    shift: Tensor
    scale: Tensor
    weight: Tensor
    mean: Tensor

    def forward(self, z: Tensor) -> Tensor:
        flat = (z.flatten(1) - self.shift) * self.scale
        return self.mean + (flat @ self.weight).reshape(-1, *self.mean.shape)


def dense_inverse(read: Read, count: int, valid: tuple[Tensor, Tensor]) -> DenseInverse:
    """The ridge regression that is best on images set aside.

    Args:
        read: index (n,) -> (z (n, *cut), x (n, C, H, W)).
        count: images to estimate from; the first `MOST` of them are used.
        valid: z and x of images set aside.
    """
    with torch.no_grad():
        pairs = [read(index) for index in torch.arange(min(count, MOST)).split(256)]
        z, x = (torch.cat([pair[k] for pair in pairs]) for k in (0, 1))
        del pairs
        flat = z.flatten(1).float()
        spread, shift = torch.std_mean(flat, 0)
        scale = torch.where(spread > DEAD * spread.median(), 1 / spread.clamp_min(1e-30), 0.0)
        flat = (flat - shift) * scale
        mean, kind = x.mean(0), Accelerator.of(z).exact
        target = (x - mean).flatten(1)
        small = flat.shape[1] <= len(flat)
        if small:
            square, cross = _products(flat.T, kind), (flat.T @ target).to(kind)
        else:
            # The same weights by the images' products: w = A'(AA' + r)^-1 B.
            square, cross = _products(flat, kind), target.to(kind)
        best, least = DenseInverse(shift, scale, flat.new_zeros(flat.shape[1], target.shape[1]), mean), math.inf
        for found in ridge_weights(square, cross, PENALTIES):
            weight = found.float() if small else flat.T @ found.float()
            tried = DenseInverse(shift, scale, weight, mean)
            error = float((tried(valid[0]).clamp(0, 1) - valid[1]).square().mean())
            if error > least:
                break
            best, least = tried, error
        return best


def _products(rows: Tensor, kind: torch.dtype) -> Tensor:
    """(n, D) -> (n, n), summed in parts so that no second copy of the rows is needed in `kind`."""
    total = rows.new_zeros(len(rows), len(rows), dtype=kind)
    for part in rows.split(2048, 1):
        wide = part.to(kind)
        total += wide @ wide.T
    return total
