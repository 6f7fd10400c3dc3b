"""Frames of one scene: what a camera makes of a picture while it stands nearly still, and how to lay them together."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from splitveil.lab.seeds import generator


@dataclass(frozen=True, slots=True)
class Camera:
    """How frames of one scene differ from its first: shifts in whole pixels, light and sensor noise (our reading).

    Attributes:
        shift: most pixels along each axis.
        light: most relative change of brightness.
        noise: standard deviation of each pixel, of a range of 1.
    """

    shift: int
    light: float
    noise: float

    def frame(self, x: Tensor, k: int, seed: int) -> Tensor:
        """The k-th frame; the first, k = 0, is x itself. x: (n, C, H, W) in [0, 1] -> the same."""
        if not k:
            return x
        draws = generator(seed, "frame", k)
        by = torch.randint(-self.shift, self.shift + 1, (len(x), 2), generator=draws)
        light = 1 + self.light * (2 * torch.rand(len(x), 1, 1, 1, generator=draws) - 1)
        noise = self.noise * torch.randn(x.shape, generator=draws)
        return (moved(x, by.to(x.device)) * light.to(x.device) + noise.to(x.device)).clamp(0, 1)


def moved(x: Tensor, by: Tensor) -> Tensor:
    """Each image by its own whole numbers of rows and columns, its edge repeated. x: (n, C, H, W), by: (n, 2)."""
    n, _, height, width = x.shape
    rows = (torch.arange(height, device=x.device) - by[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=x.device) - by[:, 1:]).clamp(0, width - 1)
    whose = torch.arange(n, device=x.device)
    return x[whose[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def laid_over(frame: Tensor, first: Tensor, shift: int) -> Tensor:
    """A frame moved to where it fits the first best and brought to its light; where it shows nothing, the first.

    Args:
        frame: (n, C, H, W).
        first: (n, C, H, W).
        shift: most pixels that are tried along each axis.
    """
    best = torch.full((len(first),), torch.inf, device=first.device)
    by = torch.zeros(len(first), 2, dtype=torch.long, device=first.device)
    wanted = _inside(first, shift)
    for step in _steps(shift):
        there = torch.tensor([step], device=first.device).expand(len(first), 2)
        off = (_relit(_inside(moved(frame, there), shift), wanted) - wanted).square().mean((1, 2, 3))
        nearer = off < best
        best, by = torch.where(nearer, off, best), torch.where(nearer[:, None], there, by)
    placed = _relit(_inside(moved(frame, by), shift), wanted, moved(frame, by))
    return torch.where(_shown(by, first.shape[2], first.shape[3]), placed, first)


def _shown(by: Tensor, height: int, width: int) -> Tensor:
    """Where an image that was moved still shows something of its own: (n, 1, H, W), bool."""
    rows = torch.arange(height, device=by.device) - by[:, :1]
    columns = torch.arange(width, device=by.device) - by[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    return inside[:, None]


def _steps(shift: int) -> Iterator[tuple[int, int]]:
    """Nearest first, so that of equals the least counts."""
    reach = range(-shift, shift + 1)
    yield from sorted(((a, b) for a in reach for b in reach), key=lambda s: abs(s[0]) + abs(s[1]))


def _inside(x: Tensor, shift: int) -> Tensor:
    """What every frame shows, if that is not too little."""
    height, width = x.shape[2:]
    top, left = min(shift, height // 4), min(shift, width // 4)
    return x[:, :, top : height - top, left : width - left]


def _relit(inside: Tensor, wanted: Tensor, whole: Tensor | None = None) -> Tensor:
    """In the light of `wanted`: the factor that brings its brightness there. (n, C, h, w) each; whole: (n, C, H, W)."""
    factor = wanted.mean((1, 2, 3), keepdim=True) / inside.mean((1, 2, 3), keepdim=True).clamp_min(1e-3)
    return (inside if whole is None else whole) * factor.clamp(0.5, 2.0)
