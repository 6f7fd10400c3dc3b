"""The reconstruction net that trains beside a defence."""

import math

from torch import Tensor, nn

WIDTH = 64


class Rival(nn.Module):
    """Features to images, small and without BatchNorm: convolutions at the features' resolution, then pixel shuffle.

    Args:
        cut: shape of z for one sample; a map (C, h, w), tokens (L, D) or flat (D,).
        image: (C, H, W).
    """

    def __init__(self, cut: tuple[int, ...], image: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = image
        self.flat = len(cut) != 3
        h, w = (math.ceil(height / 4), math.ceil(width / 4)) if self.flat else cut[1:]
        self.enter: nn.Module = (
            nn.Sequential(nn.Flatten(), nn.Linear(math.prod(cut), WIDTH * h * w), nn.Unflatten(1, (WIDTH, h, w)))
            if self.flat
            else nn.Conv2d(cut[0], WIDTH, 3, 1, 1)
        )
        factor = max(1, math.ceil(height / h), math.ceil(width / w))
        self.body = nn.Sequential(
            nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3, 1, 1), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(WIDTH, channels * factor**2, 3, 1, 1), nn.PixelShuffle(factor),
            nn.AdaptiveAvgPool2d((height, width)),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        """z: (N, *cut) -> (N, C, H, W), not clipped."""
        guess: Tensor = self.body(self.enter(z))
        return guess
