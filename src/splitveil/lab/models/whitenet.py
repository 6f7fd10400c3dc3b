"""Whitenet: the reference net that two cores train from nothing in a quarter of an hour.

A fixed whitening of 2x2 pixels, then six convolutions wide enough for a processor's matrix units, whose resolution is
halved as early as it can be. The ideas are those of fast CIFAR training (Page 2018, "How to train your ResNet"; Jordan
2024, arXiv 2404.00498), the numbers our own; its recipe is `splitveil.lab.recipe.WhitenetRecipe`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.models.base import Normalize, require_size

NARROW, WIDE = (48, 128, 256), (64, 256, 256)
"""Channels of the three stages."""
SMALLEST = 16
"""Pixels a side, of which three halvings leave one."""
COLOURS = ((1.0, 1.0, 1.0), (1.0, 1.0, -2.0), (1.0, -1.0, 0.0))
"""Grey, yellow against blue, red against green: nearly the principal axes of natural colours."""
PATTERNS = (
    ((1.0, 1.0), (1.0, 1.0)),
    ((1.0, -1.0), (1.0, -1.0)),
    ((1.0, 1.0), (-1.0, -1.0)),
    ((1.0, -1.0), (-1.0, 1.0)),
)
"""Of 2x2 pixels: their mean, its change along a row, along a column, along both."""
SPREADS = ((0.80, 0.144, 0.158, 0.059), (0.21, 0.027, 0.029, 0.009), (0.14, 0.021, 0.023, 0.007))
"""Standard deviation of each pattern in each colour, at unit length, over CIFAR-10's training images in [0, 1]."""
NOISE = 0.022
"""Squared, it is added to each variance, so that no filter shows noise alone."""


class Whitening(nn.Module):
    """Each pattern in each colour, at a standard deviation near 1, and its negative. (N, C, H, W) -> (N, 8C, H-1, W-1).

    A net trains from it in fewer steps than from pixels, whose neighbours are nearly equal. Constants, no weights.

    Args:
        normalize: what its images have gone through, of 1 or 3 channels.

    Raises:
        InputError: other channels.
    """

    filters: Tensor

    def __init__(self, normalize: Normalize) -> None:
        super().__init__()
        channels = normalize.std.shape[1]
        if channels not in (1, 3):
            raise InputError(f"expected images of 1 or 3 channels, got {channels}; choose another model.")
        colours = F.normalize(torch.tensor(COLOURS)) if channels == 3 else torch.ones(1, 1)
        spreads = torch.tensor(SPREADS[:channels]).square().add(NOISE**2).sqrt() / normalize.std.mean()
        patterns = torch.tensor(PATTERNS) / 2
        filters = torch.einsum("kc,kp,pij->kpcij", colours, 1 / spreads, patterns).flatten(0, 1)
        filters = torch.cat([filters, -filters])
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.filters)


def unit(inputs: int, outputs: int, *, halve: bool) -> nn.Sequential:
    """A 3x3 convolution, normalised, behind a 2x2 maximum where it halves the resolution."""
    unit = nn.Sequential()
    unit.add_module("conv", nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False))
    if halve:
        unit.add_module("pool", nn.MaxPool2d(2))
    unit.add_module("norm", nn.BatchNorm2d(outputs))
    unit.add_module("relu", nn.ReLU())
    return unit


class Whitenet(nn.Module):
    """Whitening, three stages of two convolutions, maximum over positions, linear. (N, C, H, W) in [0, 1] -> (N, K)."""

    def __init__(self, widths: Sequence[int], channels: int, classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(channels)
        self.whiten = Whitening(self.normalize)
        self.relu = nn.ReLU()
        inputs = len(self.whiten.filters)
        self.stages: list[str] = []
        for number, width in enumerate(widths, 1):
            self.stages.append(f"stage{number}")
            stage = nn.Sequential(unit(inputs, width, halve=True), unit(width, width, halve=False))
            self.add_module(self.stages[-1], stage)
            inputs = width
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.whiten(self.normalize(x)))
        for stage in self.stages:
            out = self.get_submodule(stage)(out)
        logits: Tensor = self.linear(out.amax((2, 3)))
        return logits


def white_net(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    """Whitening and six wide convolutions, made for two cores to train from nothing (1.1 M parameters).

    Raises:
        InputError: images smaller than 16x16, or of other than 1 or 3 channels.
    """
    require_size("whitenet", shape, SMALLEST)
    return Whitenet(NARROW, shape[0], classes)


def wide_white_net(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    """Whitenet with more channels (2.0 M parameters).

    Raises:
        InputError: images smaller than 16x16, or of other than 1 or 3 channels.
    """
    require_size("whitenet_wide", shape, SMALLEST)
    return Whitenet(WIDE, shape[0], classes)
