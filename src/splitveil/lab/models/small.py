"""A three-convolution net for demonstrations and tests, from 8x8 grey images up."""

from torch import Tensor, nn

from splitveil.lab.models.base import Normalize, require_size


class Small(nn.Module):
    """Three 3x3 convolutions, two poolings, one linear layer. x: (N, C, H, W) in [0, 1] -> logits (N, K)."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.normalize = Normalize(channels)
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(32, 48, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(48, 64, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(64 * (height // 4) * (width // 4), classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.conv1(self.normalize(x)))
        x = self.pool1(self.relu2(self.conv2(x)))
        x = self.pool2(self.relu3(self.conv3(x)))
        logits: Tensor = self.fc(self.flatten(x))
        return logits


def small_net(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    """Three convolutions for demonstrations: 44 thousand parameters at 8x8, 83 thousand at 32x32.

    Raises:
        InputError: images smaller than 4x4.
    """
    require_size("small", shape, 4)
    return Small(shape, classes)
