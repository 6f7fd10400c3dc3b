"""VGG-11 and VGG-16 with BatchNorm for small images (Simonyan and Zisserman 2015, configurations A and D).

Modules of ``features`` are numbered and shaped as in torchvision's ``vgg11_bn`` and ``vgg16_bn``; the classifier is one
linear layer on the pooled features, as is usual for CIFAR.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from splitveil.lab.models.base import Normalize, require_size

STAGES_11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))
STAGES_16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Five pooled stages of 3x3 convolutions and a linear layer. x: (N, C, H, W) in [0, 1] -> logits (N, K)."""

    def __init__(self, stages: Sequence[Sequence[int]], channels: int, classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(channels)
        layers: list[nn.Module] = []
        inputs = channels
        for stage in stages:
            for width in stage:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(inputs, classes)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.flatten(self.avgpool(self.features(self.normalize(x)))))
        return logits


def vgg11(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    """VGG-11 with BatchNorm and one linear layer (9.2 M parameters).

    Raises:
        InputError: images smaller than 32x32.
    """
    require_size("vgg11", shape, 32)
    return VGG(STAGES_11, shape[0], classes)


def vgg16(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    """VGG-16 with BatchNorm and one linear layer (14.7 M parameters).

    Raises:
        InputError: images smaller than 32x32.
    """
    require_size("vgg16", shape, 32)
    return VGG(STAGES_16, shape[0], classes)
