"""AlexNet in its single-tower form (Krizhevsky 2014), with a reduced stem and classifier for small images.

At 224 pixels names, numbering and shapes are those of torchvision's ``alexnet``, whose weights load unchanged. Up to 64
pixels all convolutions are 3x3, the first with stride 2, pooling is 2x2, and the hidden layers have 1,024 units (our
reading; the paper has no such net).
"""

from torch import Tensor, nn

from splitveil.lab.models.base import Normalize, require_size

SMALL = 64
"""Longest short side, in pixels, that gets the plan for small images."""


class AlexNet(nn.Module):
    """Five convolutions and three linear layers. x: (N, C, H, W) in [0, 1] -> logits (N, K)."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, *sides = shape
        reduced = min(sides) <= SMALL
        pool, hidden = (2, 1024) if reduced else (3, 4096)
        stem = nn.Conv2d(channels, 64, 3, 2, 1) if reduced else nn.Conv2d(channels, 64, 11, 4, 2)
        wide = 3 if reduced else 5
        self.normalize = Normalize(channels)
        self.features = nn.Sequential(
            stem, nn.ReLU(), nn.MaxPool2d(pool, 2),
            nn.Conv2d(64, 192, wide, padding=wide // 2), nn.ReLU(), nn.MaxPool2d(pool, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(pool, 2),
        )  # fmt: skip
        self.flatten = nn.Flatten()
        height, width = (_after(side, reduced=reduced) for side in sides)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(256 * height * width, hidden), nn.ReLU(),
            nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.flatten(self.features(self.normalize(x))))
        return logits


def alex_net(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    """AlexNet: 4.4 M parameters at 32x32, 61 M at 224x224 with 1,000 classes.

    Raises:
        InputError: images smaller than 16x16.
    """
    require_size("alexnet", shape, 16)
    return AlexNet(shape, classes)


def _after(side: int, *, reduced: bool) -> int:
    if reduced:
        return (side + 1) // 16
    side = (side - 7) // 4 + 1
    for _ in range(3):
        side = (side - 3) // 2 + 1
    return side
