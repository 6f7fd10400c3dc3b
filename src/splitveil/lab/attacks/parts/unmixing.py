"""Channels by how much an image tells of them: a basis that no mixing of the channels changes.

Canonical correlations (Hotelling 1936) between the channels and the part of the image about the same place. Whatever
invertible map mixes, scales, flips, orders or copies channels, whitening undoes it but for a rotation, and the rotation
to the axes of which an image tells most undoes that.
"""

import torch
from torch import Tensor, nn

from splitveil.lab.attacks.parts.places import Places, share_told, told_by_image

FAINT = 1e-12
"""Variance, relative to the mean of the channels, that rounding alone may have put there."""
LEAST_TOLD = 0.01
"""R^2 below which a direction hardly counts in a distance: a stream of channels that mean nothing has none."""


class Basis(nn.Module):
    """An affine map of the channels. z: (..., c) -> (..., r).

    Args:
        matrix: (r, c).
        back: (c, r), its inverse, or the best there is.
        before: (c,), subtracted first.
        after: (r,), added last; zeros where None.
    """

    matrix: Tensor
    back: Tensor
    before: Tensor
    after: Tensor

    def __init__(self, matrix: Tensor, back: Tensor, before: Tensor, after: Tensor | None = None) -> None:
        super().__init__()
        after = matrix.new_zeros(len(matrix)) if after is None else after
        for name, value in (("matrix", matrix), ("back", back), ("before", before), ("after", after)):
            self.register_buffer(name, value.float())

    def forward(self, z: Tensor) -> Tensor:
        return (z - self.before) @ self.matrix.T + self.after

    def inverse(self) -> "Basis":
        """Back to channels."""
        return Basis(self.back, self.matrix, self.after, self.before)


def unmixed(places: Places) -> Basis:
    """White channels, those first of which the image tells most, and weighted by that."""
    u, count = places.z.double(), places.aside
    shift = u[:count].mean(0)
    spread = u[:count].std(0)
    unit = torch.where(spread > 0, 1 / spread.clamp_min(1e-300), 0.0)
    u = (u - shift) * unit
    own = u[:count]
    # Rounding to float32 is noise of a known size, and what is smaller is nothing.
    level, axes = torch.linalg.eigh(own.T @ own / count)
    kept = level > FAINT * len(level)
    if not bool(kept.any()):
        return standard(places)
    white = axes[:, kept] / level[kept].sqrt()
    w = u @ white
    told = told_by_image(places, w.float()).double()
    shared = w[:count].T @ told[:count] / count
    turn = torch.linalg.eigh((shared + shared.T) / 2)[1].flip(1)
    w, told = w @ turn, told @ turn
    share = share_told(w[count:], told[count:])
    scale = _weight(share) * _sign(w[:count])
    matrix = (white @ turn * scale).T * unit
    back = (axes[:, kept] * level[kept].sqrt() @ turn / scale) * spread[:, None]
    return Basis(matrix, back, shift)


def standard(places: Places) -> Basis:
    """Each channel in units of its spread, those first of which the image tells most, and weighted by that."""
    z, count = places.z.double(), places.aside
    spread, shift = torch.std_mean(z[:count], 0)
    unit = torch.where(spread > 0, 1 / spread.clamp_min(1e-300), 0.0)
    u = (z - shift) * unit
    share = share_told(u[count:], told_by_image(places, u.float()).double()[count:])
    scale, order = _weight(share) * _sign(u[:count]), share.argsort(descending=True)
    matrix = torch.diag(unit * scale)[order]
    back = torch.diag(spread / scale)[:, order]
    return Basis(matrix, back, shift)


def _weight(share: Tensor) -> Tensor:
    return (share / (share + LEAST_TOLD)).sqrt().clamp_min(LEAST_TOLD)


def _sign(u: Tensor) -> Tensor:
    """The way in which the long tail points: flipping a channel changes nothing."""
    return torch.where(u.pow(3).mean(0) < 0, -1.0, 1.0).to(u.dtype)
