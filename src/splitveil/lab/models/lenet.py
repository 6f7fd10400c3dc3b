"""LeNet-5 with ReLUs as attacked by He et al. (ACSAC 2019): 8 and 16 unpadded 5x5 filters, then 120, 84 and K units."""

from torch import Tensor, nn

from splitveil.lab.models.base import Normalize, require_size


class LeNet5(nn.Module):
    """Two convolutions and three linear layers. x: (N, C, H, W) in [0, 1] -> logits (N, K)."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.normalize = Normalize(channels)
        self.conv1 = nn.Conv2d(channels, 8, 5)
        self.ReLU1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(8, 16, 5)
        self.ReLU2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(16 * _after(height) * _after(width), 120)
        self.fc1act = nn.ReLU()
        self.fc2 = nn.Linear(120, 84)
        self.fc2act = nn.ReLU()
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.ReLU1(self.conv1(self.normalize(x))))
        x = self.flatten(self.pool2(self.ReLU2(self.conv2(x))))
        logits: Tensor = self.fc3(self.fc2act(self.fc2(self.fc1act(self.fc1(x)))))
        return logits


def lenet5(shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10) -> nn.Module:
    """LeNet-5 of He et al. 2019 (45 thousand parameters at 28x28).

    Raises:
        InputError: images smaller than 16x16.
    """
    require_size("lenet5", shape, 16)
    return LeNet5(shape, classes)


def _after(side: int) -> int:
    return ((side - 4) // 2 - 4) // 2
