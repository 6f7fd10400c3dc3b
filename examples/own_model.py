"""Cut a network of your own: ``python examples/own_model.py`` or ``splitveil cuts examples/own_model.py:two_paths``."""

import torch
from torch import Tensor, nn

import splitveil as sv


class TwoPaths(nn.Module):
    """A stem, then two branches that meet again: between them two tensors would cross, so no cut is legal there."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, 2, 1), nn.ReLU())
        self.left, self.right = nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 16, 1)
        self.join = nn.ReLU()
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) in [0, 1] -> logits (N, K)."""
        x = self.stem(x)
        out: Tensor = self.head(self.join(self.left(x) + self.right(x)))
        return out


def two_paths(shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Module:
    """What ``PATH.py:FACTORY`` calls."""
    return TwoPaths(shape[0], classes)


if __name__ == "__main__":
    model, x = two_paths().eval(), torch.rand(4, 3, 32, 32)
    for cut in sv.cuts(model, x):
        print(f"{cut.name:14} {cut.shape!s:14} {cut.edge_share:4.0%} of the work on the device, {cut.bytes_u8} bytes")
    halves = sv.split(model, "join", x)
    assert torch.equal(halves.cloud(halves.edge(x)), model(x)), "bit for bit"
    try:
        sv.split(model, "left", x)
    except sv.SplitVeilError as error:
        print(f"refused: {error}")
