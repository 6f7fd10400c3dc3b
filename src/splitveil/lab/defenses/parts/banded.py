"""A convolution of few channels as a product with a banded matrix: equal outputs, a quarter of the time in training."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BandedConv2d(nn.Conv2d):
    """Square kernel, stride 1, no bias, as many rows out as in. (N, C, A, B) -> (N, O, A, B).

    A processor's convolutions want many channels, and a kernel of 2 in and 1 out leaves it waiting. Windows of rows
    times a matrix with the kernel along its bands take several times the multiplications and a quarter of the time. In
    eval mode it is the plain convolution, which is what a device runs and what its multiplications are counted by.

    Args:
        inputs: C.
        outputs: O.
        kernel: its side, odd.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, 1, kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return banded_conv(x, self.weight) if self.training else super().forward(x)


def banded_conv(x: Tensor, weight: Tensor) -> Tensor:
    """``conv2d(x, weight)``, padded with zeros to the size of x. x: (N, C, A, B), weight: (O, C, K, K), K odd."""
    n, _, a, b = x.shape
    outputs, channels, side, _ = weight.shape
    column = torch.arange(b, device=x.device)
    shift = torch.arange(side, device=x.device) - side // 2
    bands = (column[:, None] - column == shift[:, None, None]).to(weight.dtype)  # (K, b', b): is b' = b + shift
    matrix = (weight.flatten(0, 2) @ bands.flatten(1)).view(outputs, channels * side * b, b)
    matrix = matrix.transpose(0, 1).flatten(1)  # (C K b', O b)
    windows = F.pad(x, (0, 0, side // 2, side // 2)).unfold(2, side, 1)  # (N, C, A, B, K)
    rows = windows.permute(0, 2, 1, 4, 3).reshape(n * a, channels * side * b)
    return (rows @ matrix).view(n, a, outputs, b).transpose(1, 2)
