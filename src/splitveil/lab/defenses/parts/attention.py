"""Attention of convolutional features: squeeze-excitation, triplet attention, CBAM."""

import torch
from torch import Tensor, nn

from splitveil.lab.defenses.parts.banded import BandedConv2d


class SqueezeExcitation(nn.Module):
    """Channels weighted by what they hold on average (Hu et al. 2018). (N, C, H, W) -> the same.

    Args:
        channels: C.
        reduction: C over the width of the hidden layer.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, hidden, 1, bias=False), nn.ReLU(),
            nn.Conv2d(hidden, channels, 1, bias=False), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = x * self.gate(x)
        return gated


class _ZPoolGate(nn.Module):
    """A gate from the largest and the mean value along one axis."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(BandedConv2d(2, 1, kernel), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, x: Tensor, axis: int) -> Tensor:
        """(N, C, H, W) -> (N, 1, A, B), A and B being the axes that are left, in order."""
        gate: Tensor = self.gate(torch.stack([x.amax(axis), x.mean(axis)], 1))
        return gate


class TripletAttention(nn.Module):
    """Mean of three gates, each across one pair of axes (Misra et al. 2021). (N, C, H, W) -> the same.

    The published module turns x so that the pooled axis comes second, and turns the result back; here the gates are
    added before x is multiplied once, which is the same. Pooled over rows its gate lies on (C, W); over columns the
    published one lies on (H, C).
    """

    def __init__(self) -> None:
        super().__init__()
        self.plane, self.rows, self.columns = _ZPoolGate(7), _ZPoolGate(7), _ZPoolGate(7)

    def forward(self, x: Tensor) -> Tensor:
        by_rows = self.rows(x, 2).transpose(1, 2)
        by_columns = self.columns(x.transpose(1, 2), 3).permute(0, 3, 2, 1)
        out: Tensor = x * ((self.plane(x, 1) + by_rows + by_columns) / 3)
        return out


class BlockAttention(nn.Module):
    """CBAM: channels gated by their mean and their peak, then positions (Woo et al. 2018). (N, C, H, W) -> the same.

    Args:
        channels: C.
        reduction: C over the width of the hidden layer.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.shared = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.ReLU(), nn.Conv2d(hidden, channels, 1, bias=False)
        )
        self.place = BandedConv2d(2, 1, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.sigmoid(self.shared(x.mean((2, 3), keepdim=True)) + self.shared(x.amax((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.place(torch.stack([x.mean(1), x.amax(1)], 1)))
