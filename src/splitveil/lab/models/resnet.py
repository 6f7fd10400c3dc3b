"""Residual nets for small images: ResNet-20, ResNet-56 and a ResNet-18 with a small stem (He et al. 2016).

The option-A shortcut (strided subsampling, zero-padded channels) and the names ``linear`` and ``layerK.I.convJ`` are
those of the widely used public weights, which load unchanged.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.lab.models.base import Normalize


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, new channels filled with zeros; no weights. (N, C, H, W) -> (N, out, H/2, W/2)."""

    def __init__(self, extra_channels: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = extra_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        half = self.extra // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.extra - half))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, padded: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = (
                PaddedShortcut(outputs - inputs, stride)
                if padded
                else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """Stem, stages, global average, linear. x: (N, C, H, W) in [0, 1] -> logits (N, K)."""

    def __init__(
        self, depths: Sequence[int], widths: Sequence[int], channels: int, classes: int, *, padded: bool
    ) -> None:
        super().__init__()
        self.normalize = Normalize(channels)
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages: list[str] = []
        inputs = widths[0]
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for j in range(depth):
                blocks.append(BasicBlock(inputs, width, 2 if i and not j else 1, padded=padded))
                inputs = width
            self.stages.append(f"layer{i + 1}")
            self.add_module(self.stages[-1], nn.Sequential(*blocks))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(self.normalize(x))))
        for stage in self.stages:
            out = self.get_submodule(stage)(out)
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits


def resnet20(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    """ResNet-20 for CIFAR (0.27 M parameters), option-A shortcuts."""
    return CifarResNet((3, 3, 3), (16, 32, 64), shape[0], classes, padded=True)


def resnet56(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    """ResNet-56 for CIFAR (0.85 M parameters), option-A shortcuts."""
    return CifarResNet((9, 9, 9), (16, 32, 64), shape[0], classes, padded=True)


def resnet18(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    """ResNet-18 with a 3x3 stem and no pooling, for 32 to 64 pixel images (11.2 M parameters)."""
    return CifarResNet((2, 2, 2, 2), (64, 128, 256, 512), shape[0], classes, padded=False)
