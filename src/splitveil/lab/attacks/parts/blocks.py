"""Blocks of decoders: a plain residual one, and those that the Golden Partition Zone paper sets against deep features.

All are norm-free: the branch starts small instead. BatchNorm takes back on CPUs what bf16 gains, and its batch
statistics blur what single images leak. The paper names the ideas (attention, squeeze and excitation, large kernels,
several scales); widths, gates and the missing normalisation are our reading.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SQUEEZE, HEADS, TOKENS = 16, 2, 256


def _start_small(conv: nn.Conv2d, gain: float) -> nn.Conv2d:
    nn.init.kaiming_normal_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    with torch.no_grad():
        conv.weight.mul_(gain)
    return conv


class ScaledBlock(nn.Module):
    """Two 3x3 convolutions beside the identity. (N, W, h, w) -> same.

    Args:
        width: channels.
        blocks: blocks in a row; the more, the smaller each branch starts.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.first = _start_small(nn.Conv2d(width, width, 3, 1, 1), 1.0)
        self.second = _start_small(nn.Conv2d(width, width, 3, 1, 1), 0.5 * blocks**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(F.relu(self.first(F.relu(x))))
        return out


class Squeeze(nn.Module):
    """Squeeze and excitation (Hu et al. 2018): the branch is gated by channel. (N, W, h, w) -> same."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.first = _start_small(nn.Conv2d(width, width, 3, 1, 1), 1.0)
        self.second = _start_small(nn.Conv2d(width, width, 3, 1, 1), 0.5 * blocks**-0.5)
        hidden = max(8, width // SQUEEZE)
        self.gate = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        branch = self.second(F.relu(self.first(F.relu(x))))
        out: Tensor = x + 2 * branch * self.gate(branch.mean((2, 3), keepdim=True))
        return out


class LargeKernel(nn.Module):
    """Large-kernel attention: a gate from depthwise 5x5 and dilated 7x7 windows (LSK). (N, W, h, w) -> same."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.inner = _start_small(nn.Conv2d(width, width, 1), 1.0)
        self.near = nn.Conv2d(width, width, 5, 1, 2, groups=width)
        self.far = nn.Conv2d(width, width, 7, 1, 9, dilation=3, groups=width)
        self.mix = nn.Conv2d(width, width, 1)
        self.outer = _start_small(nn.Conv2d(width, width, 1), 0.5 * blocks**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.inner(F.relu(x)))
        near = self.near(inner)
        out: Tensor = x + self.outer(inner * self.mix(near + self.far(near)))
        return out


class MultiScale(nn.Module):
    """Multi-scale attention: a gate from depthwise 3x3, 5x5 and 7x7 windows (MSCA). (N, W, h, w) -> same."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.inner = _start_small(nn.Conv2d(width, width, 1), 1.0)
        self.scales = nn.ModuleList(nn.Conv2d(width, width, k, 1, k // 2, groups=width) for k in (3, 5, 7))
        self.mix = nn.Conv2d(width, width, 1)
        self.outer = _start_small(nn.Conv2d(width, width, 1), 0.5 * blocks**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.inner(F.relu(x)))
        gate = self.mix(torch.stack([scale(inner) for scale in self.scales]).sum(0))
        out: Tensor = x + self.outer(inner * gate)
        return out


class AttentionBlock(nn.Module):
    """Self-attention over positions with two heads, then a small net a position. (N, W, h, w) -> same.

    Grids of more than 256 positions are attended to at half resolution.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.project = _start_small(nn.Conv2d(width, 3 * width, 1), 0.5)
        self.outer = _start_small(nn.Conv2d(width, width, 1), 0.5 * blocks**-0.5)
        self.first = _start_small(nn.Conv2d(width, 2 * width, 1), 1.0)
        self.second = _start_small(nn.Conv2d(2 * width, width, 1), 0.5 * blocks**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        coarse = x
        while coarse.shape[2] * coarse.shape[3] > TOKENS:
            coarse = F.avg_pool2d(coarse, 2, ceil_mode=True)
        n, width, h, w = coarse.shape
        q, k, v = self.project(coarse).reshape(n, 3, HEADS, width // HEADS, h * w).transpose(3, 4).unbind(1)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(n, width, h, w)
        added = self.outer(seen)
        if added.shape != x.shape:
            added = F.interpolate(added, size=x.shape[2:], mode="bilinear", align_corners=False)
        x = x + added
        out: Tensor = x + self.second(F.relu(self.first(F.relu(x))))
        return out


BLOCKS: dict[str, Callable[[int, int], nn.Module]] = {
    "residual": ScaledBlock,
    "squeeze": Squeeze,
    "large_kernel": LargeKernel,
    "multi_scale": MultiScale,
    "attention": AttentionBlock,
}
"""Kinds of blocks by name: each takes width and the number of blocks in a row."""
