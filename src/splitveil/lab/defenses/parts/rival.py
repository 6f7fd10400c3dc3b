"""`Rival`: a reconstruction net that trains beside a defence, as the adversary that it learns to resist."""

import math

from torch import Tensor, nn

from splitveil.lab.defenses.base import Adversary, Guess

WIDTH = 64
FINEST = 2
"""Pixels of the image to one position, at least: a finer map is read with a stride, or the adversary would cost more
than the net that it trains beside."""


class Rival(Adversary):
    """Features to images, small and without BatchNorm: convolutions at the features' resolution, then pixel shuffle.

    Args:
        cut: shape of z for one sample; a map (C, h, w), tokens (L, D) or flat (D,).
        image: (C, H, W).
        classes: K, to guess the label as well; 0 does not.
    """

    def __init__(self, cut: tuple[int, ...], image: tuple[int, int, int], classes: int = 0) -> None:
        super().__init__()
        channels, height, width = image
        self.flat = len(cut) != 3
        h, w = (math.ceil(height / 4), math.ceil(width / 4)) if self.flat else cut[1:]
        stride = 1 if self.flat else max(1, math.ceil(FINEST * min(h / height, w / width)))
        h, w = math.ceil(h / stride), math.ceil(w / stride)
        self.enter: nn.Module = (
            nn.Sequential(nn.Flatten(), nn.Linear(math.prod(cut), WIDTH * h * w), nn.Unflatten(1, (WIDTH, h, w)))
            if self.flat
            else nn.Conv2d(cut[0], WIDTH, 2 * stride + 1, stride, stride)
        )
        factor = max(1, math.ceil(height / h), math.ceil(width / w))
        self.body = nn.Sequential(
            nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3, 1, 1), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(WIDTH, channels * factor**2, 3, 1, 1), nn.PixelShuffle(factor),
            nn.AdaptiveAvgPool2d((height, width)),
        )  # fmt: skip
        self.label = (
            nn.Sequential(nn.Flatten(), nn.Linear(math.prod(cut), 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, classes))
            if classes
            else None
        )

    def forward(self, z: Tensor) -> Guess:
        """z: (N, *cut)."""
        return Guess(self.body(self.enter(z)), None if self.label is None else self.label(z))
