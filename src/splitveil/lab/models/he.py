"""The six-convolution CIFAR net that He et al. (ACSAC 2019) attack at ``conv11``, ``ReLU22`` and ``ReLU32``.

Like theirs it has no BatchNorm and a sigmoid after ``fc1``.
"""

from torch import Tensor, nn

from splitveil.lab.models.base import Normalize, require_size

WIDTHS = {"11": 64, "12": 64, "21": 128, "22": 128, "31": 128, "32": 128}
HIDDEN = 512


class CNN6(nn.Module):
    """Three pooled pairs of 3x3 convolutions, two linear layers. x: (N, C, H, W) in [0, 1] -> logits (N, K)."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        inputs, height, width = shape
        self.normalize = Normalize(inputs)
        self.steps: list[str] = []
        for at, outputs in WIDTHS.items():
            self._add(f"conv{at}", nn.Conv2d(inputs, outputs, 3, padding=1))
            self._add(f"ReLU{at}", nn.ReLU())
            if at.endswith("2"):
                self._add(f"pool{at[0]}", nn.MaxPool2d(2))
            inputs = outputs
        self._add("flatten", nn.Flatten())
        self._add("fc1", nn.Linear(inputs * (height // 8) * (width // 8), HIDDEN))
        self._add("fc1act", nn.Sigmoid())
        self._add("fc2", nn.Linear(HIDDEN, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.normalize(x)
        for step in self.steps:
            x = self.get_submodule(step)(x)
        return x

    def _add(self, name: str, module: nn.Module) -> None:
        self.steps.append(name)
        self.add_module(name, module)


def cnn6(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    """The CIFAR net of He et al. 2019: six convolutions, two linear layers (1.6 M parameters at 32x32).

    Raises:
        InputError: images smaller than 8x8.
    """
    require_size("cnn6", shape, 8)
    return CNN6(shape, classes)
