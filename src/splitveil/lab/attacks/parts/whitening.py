"""Image space in units of how much natural images, or an attack's errors, vary along each of its axes."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Whitening:
    """Image space in units of natural spread: ``x = centre + decode(scale * p)`` with p about standard normal.

    scale: (C, H, W); rows: (H, H) and columns: (W, W) orthonormal cosines; colours: (C, C) orthonormal.
    """

    scale: Tensor
    rows: Tensor
    columns: Tensor
    colours: Tensor

    @classmethod
    def of(
        cls, differences: Tensor | None, shape: tuple[int, int, int], device: torch.device | None = None
    ) -> "Whitening":
        """Spread of images about their centre, (M, C, H, W); without any, a spectrum that falls as 1/f.

        It lies on the device of the images, without any on `device`.
        """
        channels, height, width = shape
        device = device if differences is None else differences.device
        rows, columns, colours = (axes.to(device) for axes in (cosines(height), cosines(width), opponents(channels)))
        if differences is not None and len(differences) > 1:
            coefficients = torch.einsum("cd,ndhw->nchw", colours, rows @ differences @ columns.T)
            spread = coefficients.square().mean(0).sqrt()
            return cls(spread.clamp_min(1e-2 * float(spread.mean())).clamp_min(1e-5), rows, columns, colours)
        frequency = torch.hypot(torch.arange(height)[:, None] / height, torch.arange(width)[None] / width)
        spread = 0.15 * (height * width) ** 0.5 / (1 + 32 * frequency)
        strength = torch.tensor([1.0] + [0.3] * (channels - 1)).reshape(-1, 1, 1)
        return cls((spread * strength).to(device), rows, columns, colours)

    def image(self, p: Tensor) -> Tensor:
        """p: (N, C, H, W) -> difference to the centre (N, C, H, W)."""
        pixels = self.rows.T @ (p * self.scale) @ self.columns
        x: Tensor = torch.einsum("cd,nchw->ndhw", self.colours, pixels)
        return x


def cosines(n: int) -> Tensor:
    """Orthonormal DCT-II matrix, (n, n)."""
    k = torch.arange(n, dtype=torch.float32)
    matrix = torch.cos(math.pi * (k[None] + 0.5) * k[:, None] / n) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def opponents(channels: int) -> Tensor:
    """Orthonormal colour axes, (C, C): brightness, red-blue, green-magenta for RGB; else the channels themselves."""
    if channels != 3:
        return torch.eye(channels)
    axes = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    unit: Tensor = axes / axes.norm(dim=1, keepdim=True)
    return unit
