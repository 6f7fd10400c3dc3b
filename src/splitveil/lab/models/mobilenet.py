"""MobileNetV2 (Sandler et al. 2018, table 2), with fewer strides for small images.

Names and shapes are those of torchvision's ``mobilenet_v2``, whose weights load unchanged at any size.
"""

from torch import Tensor, nn

from splitveil.lab.models.base import Normalize, require_size

SMALL = 64
"""Longest short side, in pixels, for which the stem and the second group keep the resolution."""

GROUPS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repeats, stride of the first repeat."""

STEM, LAST, DROPOUT = 32, 1280, 0.2


class ConvNormAct(nn.Sequential):
    """Convolution, BatchNorm, ReLU6."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(),
        )


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project without activation; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [ConvNormAct(inputs, hidden, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            ConvNormAct(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.shortcut else out


class MobileNetV2(nn.Module):
    """Stem, 17 inverted residuals, head, linear. x: (N, C, H, W) in [0, 1] -> logits (N, K)."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        reduced = min(shape[1:]) <= SMALL
        self.normalize = Normalize(shape[0])
        layers: list[nn.Module] = [ConvNormAct(shape[0], STEM, 3, 1 if reduced else 2)]
        inputs = STEM
        for i, (expansion, width, repeats, first) in enumerate(GROUPS):
            for j in range(repeats):
                stride = first if j == 0 and not (reduced and i == 1) else 1
                layers.append(InvertedResidual(inputs, width, stride, expansion))
                inputs = width
        layers.append(ConvNormAct(inputs, LAST, 1))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(LAST, classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.flatten(self.avgpool(self.features(self.normalize(x)))))
        return logits


def mobilenetv2(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    """MobileNetV2 1.0 (2.2 M parameters with 10 classes).

    Raises:
        InputError: images smaller than 8x8.
    """
    require_size("mobilenetv2", shape, 8)
    return MobileNetV2(shape, classes)
