"""A narrow passage at the cut that starts with the directions which the task listens to (ours)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.cut import Split
from splitveil.lab.cut.grafted import graft
from splitveil.lab.defenses.base import Defense, Sample

SHARE = 1 / 4
"""Of the cut's channels that are sent by default."""
LEAST = 2
BATCH = 64
RIDGE = 1e-5
"""Added to the channels' covariance, relative to its mean variance."""


class Narrow(nn.Module):
    """(N, C, h, w) -> (N, sent, h / pool, w / pool): a 1x1 convolution, then the mean of each square."""

    def __init__(self, channels: int, sent: int, pool: int) -> None:
        super().__init__()
        self.mix, self.pool = nn.Conv2d(channels, sent, 1), nn.AvgPool2d(pool)

    def forward(self, h: Tensor) -> Tensor:
        z: Tensor = self.pool(self.mix(h))
        return z


class Widen(nn.Module):
    """(N, sent, h / pool, w / pool) -> (N, C, h, w): resolution by interpolation, channels by a 1x1 convolution."""

    def __init__(self, sent: int, channels: int, pool: int) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=pool, mode="bilinear") if pool > 1 else nn.Identity()
        self.mix = nn.Conv2d(sent, channels, 1)

    def forward(self, z: Tensor) -> Tensor:
        h: Tensor = self.mix(self.up(z))
        return h


class Bottleneck(Defense):
    """Few channels, chosen by what the cloud half does with them: a trained net starts nearly as good as it was.

    With S the covariance of the channels over images and positions, and G the second moment of the task loss's gradient
    to them, the passage starts as the projection onto the leading eigenvectors V of ``S^(1/2) G S^(1/2)``: what is left
    out changes the loss least, to the second order with the empirical Fisher matrix. Sent is ``V^T S^(-1/2) (h - m)``,
    channels of unit variance that do not correlate, or louder the more the loss depends on them (`emphasis`), which is
    what noise behind the passage should find; the cloud begins with the inverse. Both are then trained with the rest.
    (Ours; the nearest relatives are PrivyNet's choice of whole channels and Private Split Inference's null
    space.)

    Args:
        channels: sent; 0 is a quarter of the cut's, at least 2.
        pool: 2 sends half the resolution.
        emphasis: each channel's standard deviation is its eigenvalue to the power of half of this.

    Raises:
        InputError: a cut that is no feature map, when installed; an option out of range.
    """

    name: ClassVar[str] = "bottleneck"

    def __init__(self, *, channels: int = 0, pool: int = 1, emphasis: float = 0.0) -> None:
        super().__init__()
        if not 0 <= emphasis <= 2:
            raise InputError(f"expected emphasis from 0 to 2, got {emphasis}; use bottleneck:emphasis=0.5.")
        if channels < 0 or pool not in (1, 2, 4):
            raise InputError(
                f"expected channels >= 0 and pool of 1, 2 or 4, got {channels} and {pool}; use bottleneck:channels=8."
            )
        self.channels, self.pool, self.emphasis = channels, pool, float(emphasis)

    def install(self, split: Split) -> Split:
        shape = split.cut.shape
        if len(shape) != 3 or shape[1] % self.pool or shape[2] % self.pool:
            raise InputError(
                f"expected a feature map (C, h, w) whose sides {self.pool} divides, got {shape}; cut elsewhere or use "
                "bottleneck:pool=1."
            )
        sent = min(shape[0], self.channels or max(LEAST, round(SHARE * shape[0])))
        return graft(split, Narrow(shape[0], sent, self.pool), Widen(sent, shape[0], self.pool))

    def study(self, split: Split, sample: Sample) -> None:
        (edge, narrow), (widen, cloud) = _halves(split)
        mean, spread, listened = moments(edge, cloud, sample.x, sample.y)
        root, back = powers(spread)
        values, vectors = torch.linalg.eigh(root @ listened @ root)
        order = values.argsort(descending=True)[: narrow.mix.out_channels]
        leading, size = vectors[:, order], values[order].clamp_min(1e-12)
        size = (size / size.mean()) ** (self.emphasis / 2)
        into, out = size[:, None] * (leading.T @ back), root @ leading / size
        with torch.no_grad():
            narrow.mix.weight.copy_(into[..., None, None])
            narrow.mix.bias.copy_(-into @ mean)  # type: ignore[union-attr]
            widen.mix.weight.copy_(out[..., None, None])
            widen.mix.bias.copy_(mean)  # type: ignore[union-attr]


def moments(edge: nn.Module, cloud: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,) and covariance (C, C) of the channels, and second moment (C, C) of the loss's gradient to them.

    Over images and positions, in float64 where the device has it; the loss is each image's own cross-entropy.
    x: (M, C, H, W), y: (M,).
    """
    seen, slopes = [], []
    for part, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
        with torch.no_grad():
            h = edge(part)
        with torch.enable_grad():
            loss = F.cross_entropy(cloud(h.requires_grad_(True)), labels, reduction="sum")
        (slope,) = torch.autograd.grad(loss, h)
        seen.append(h.detach().transpose(0, 1).flatten(1))
        slopes.append(slope.transpose(0, 1).flatten(1))
    flat, slope = (torch.cat(parts, 1).to(Accelerator.of(x).exact) for parts in (seen, slopes))
    return flat.mean(1), torch.cov(flat, correction=0), slope @ slope.T / slope.shape[1]


def powers(spread: Tensor) -> tuple[Tensor, Tensor]:
    """Square root and inverse square root of a covariance (C, C), with a little added for dead channels."""
    values, vectors = torch.linalg.eigh(spread)
    values = values.clamp_min(0) + RIDGE * values.mean().clamp_min(1e-12)
    return vectors @ (values.sqrt()[:, None] * vectors.T), vectors @ (values.rsqrt()[:, None] * vectors.T)


def _halves(split: Split) -> tuple[tuple[nn.Module, Narrow], tuple[Widen, nn.Module]]:
    """The parts that `install` put together, the defence's own in the middle."""
    match (split.edge, split.cloud):
        case (nn.Sequential() as edge, nn.Sequential() as cloud):
            match (*edge, *cloud):
                case (before, Narrow() as narrow, Widen() as widen, after):
                    return (before, narrow), (widen, after)
    raise InputError("expected the split with the bottleneck last; put bottleneck after what changes the edge half.")
