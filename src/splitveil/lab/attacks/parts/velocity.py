"""The velocity of a flow from noise to residuals, how it is trained, and how it is followed."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.lab.attacks.parts.blocks import ScaledBlock
from splitveil.lab.attacks.parts.decoder_network import Decoder
from splitveil.lab.attacks.parts.whitening import Whitening

WAVES = 8
"""Sines, and as many cosines, that tell the net the time."""


class Velocity(nn.Module):
    """Velocity of a residual at time t, given features and the decoder's guess: a norm-free U-Net of two resolutions.

    It works on the pixel-unshuffled image; the features join at the lower resolution through a small decoder of their
    own, which `context` runs once for all steps.

    Args:
        features: shape of z for one sample.
        image: (C, H, W).
        width: channels at the working grid; twice as many below it.
        blocks: residual blocks before and after the lower resolution, which has twice as many.
    """

    def __init__(self, features: tuple[int, ...], image: tuple[int, int, int], width: int, blocks: int) -> None:
        super().__init__()
        channels, *size = image
        self.size, self.factor = size, 1 if max(size) < 16 else 2 if max(size) <= 48 else 4 if max(size) <= 128 else 8
        low = [math.ceil(s / self.factor / 2) for s in size]
        self.pad = (0, 2 * low[1] * self.factor - size[1], 0, 2 * low[0] * self.factor - size[0])
        shape = (2 * width, low[0], low[1])
        self.trunk = Decoder(features, shape, torch.zeros(shape), width, 1)
        self.enter = nn.Conv2d(2 * channels * self.factor**2, width, 3, 1, 1)
        self.down = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * width, 2 * width, 3, 1, 1))
        self.up = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 3, 1, 1), nn.PixelShuffle(2))
        self.before, self.after = (nn.ModuleList(ScaledBlock(width, blocks) for _ in range(blocks)) for _ in range(2))
        self.below = nn.ModuleList(ScaledBlock(2 * width, 2 * blocks) for _ in range(2 * blocks))
        self.widths = [width] * blocks + [2 * width] * 2 * blocks + [width] * blocks
        self.time = nn.Sequential(nn.Linear(2 * WAVES, 2 * width), nn.SiLU(), nn.Linear(2 * width, sum(self.widths)))
        self.head = nn.Conv2d(width, channels * self.factor**2, 3, 1, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def context(self, z: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
        """What all steps share. z: (N, *cut), normalised; guess: (N, C, H, W) -> map of the features, padded guess."""
        return self.trunk(z), F.pad(guess, self.pad)

    def forward(self, r: Tensor, t: Tensor, context: tuple[Tensor, Tensor]) -> Tensor:
        """r: (N, C, H, W) in units of the residual's spread; t: (N,) in [0, 1] -> (N, C, H, W)."""
        known, guess = context
        angles = math.pi * t[:, None] * 2.0 ** torch.arange(WAVES, device=t.device)
        clock = self.time(torch.cat([angles.sin(), angles.cos()], 1))[..., None, None].split(self.widths, 1)
        now = iter(clock)
        h = self.enter(F.pixel_unshuffle(torch.cat([F.pad(r, self.pad), guess], 1), self.factor))
        for block in self.before:
            h = block(h + next(now))
        beside, h = h, self.down(h) + known
        for block in self.below:
            h = block(h + next(now))
        h = beside + self.up(h)
        for block in self.after:
            h = block(h + next(now))
        out = F.pixel_shuffle(self.head(F.relu(h)).float(), self.factor)
        return out[..., : self.size[0], : self.size[1]]


class Matching(nn.Module):
    """Squared error of the velocity in units of the residuals' spread: features, guess and residual -> scalar.

    The path is ``(1 - t) noise + t residual``. The noise has the residuals' own spectrum (our reading; the papers' is
    white), so that little is left to learn but what is not Gaussian in them, and what z tells.
    """

    def __init__(self, velocity: Velocity, space: Whitening, unit: float) -> None:
        super().__init__()
        self.velocity, self.space, self.unit = velocity, space, unit

    def forward(self, z: Tensor, guess: Tensor, r: Tensor) -> Tensor:
        noise = self.space.image(torch.randn(r.shape, device=r.device))
        return self.errors(z, guess, r, torch.rand(len(r), device=r.device), noise).mean()

    def errors(self, z: Tensor, guess: Tensor, r: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """(N,), at the times t (N,) on the way from noise to r, both (N, C, H, W)."""
        at = t[:, None, None, None]
        with torch.autocast(r.device.type, enabled=False):
            now, wanted = ((1 - at) * noise + at * r) / self.unit, (r - noise) / self.unit
        out: Tensor = self.velocity(now, t, self.velocity.context(z, guess))
        return (out - wanted).square().mean((1, 2, 3))


def follow(velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Where the flow carries noise, by Heun's rule.

    Args:
        velocity: r (N, C, H, W) and t (N,) in [0, 1] -> (N, C, H, W).
        noise: (N, C, H, W).
        steps: between the times 0 and 1.
    """
    r, times, step = noise, torch.linspace(0, 1, steps + 1, device=noise.device), 1 / steps
    slope = velocity(r, times[0].expand(len(r)))
    for k in range(steps):
        ahead = velocity(r + step * slope, times[k + 1].expand(len(r)))
        r = r + 0.5 * step * (slope + ahead)
        slope = velocity(r, times[k + 1].expand(len(r))) if k + 1 < steps else slope
    return r
