"""SiftFunnel (Liu et al. 2025, arXiv 2501.00824): a funnel on the edge, and limits on what it lets through."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from splitveil.cut import Split
from splitveil.cut.grafted import graft
from splitveil.defenses.attention import BlockAttention, SqueezeExcitation, TripletAttention
from splitveil.defenses.base import Batch, Defense, Stage
from splitveil.defenses.label_smoothing import smoothed_cross_entropy
from splitveil.errors import InputError
from splitveil.metrics.dependence import distance_correlation
from splitveil.registry import Value

REFIT = Stage("refit", trains=frozenset({"cloud"}), rate=0.1, task_only=True)
"""The second stage."""
LEAST = 4
"""Channels that a derived funnel sends at least."""
SENT = 3 / 64
"""Of the cut's channels: 6 of 128, as the published ResNet."""
DEAD = 1e-6
"""Spatial variance, relative to the mean over channels, below which a channel counts as dead."""


class Funnel(nn.Module):
    """The published ResNet's edge end for any cut: attention, 1x1 down, small convolutions, attention.

    Squeeze-excitation and triplet attention; 1x1 to a quarter with BatchNorm and ReLU; 1x1 to `sent`, 3x3, SiLU, 1x1,
    3x3, 5x5, ReLU; squeeze-excitation and CBAM. (N, C, h, w) -> (N, sent, h / pool, w / pool).

    Args:
        channels: C.
        sent: channels that cross.
        pool: 2 for the published CNN, whose funnel halves the resolution; else 1.
    """

    def __init__(self, channels: int, sent: int, pool: int) -> None:
        super().__init__()
        quarter = max(sent, channels // 4)
        self.first = nn.Sequential(SqueezeExcitation(channels, 16), TripletAttention())
        self.down = nn.Sequential(
            nn.Conv2d(channels, quarter, 1), nn.BatchNorm2d(quarter), nn.ReLU(),
            nn.MaxPool2d(pool) if pool > 1 else nn.Identity(),
            nn.Conv2d(quarter, sent, 1), nn.Conv2d(sent, sent, 3, 1, 1), nn.SiLU(),
            nn.Conv2d(sent, sent, 1), nn.Conv2d(sent, sent, 3, 1, 1), nn.Conv2d(sent, sent, 5, 1, 2), nn.ReLU(),
        )  # fmt: skip
        self.last = nn.Sequential(SqueezeExcitation(sent, max(1, sent // 2)), BlockAttention(sent, max(1, sent // 2)))

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.last(self.down(self.first(z)))
        return out


class Expansion(nn.Module):
    """The cloud's up-sampling module, which expands channels: two 3x3 convolutions, BatchNorm, ReLU, triplet attention.

    Args:
        sent: channels that crossed.
        channels: C, which the cloud half takes.
        pool: the funnel's; resolution is brought back by repetition.
    """

    def __init__(self, sent: int, channels: int, pool: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Upsample(scale_factor=pool) if pool > 1 else nn.Identity(),
            nn.Conv2d(sent, channels, 3, 1, 1, bias=False), nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels), nn.ReLU(), TripletAttention(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.net(z)
        return out


class SiftFunnel(Defense):
    """Few channels, and of those no more than the task needs: the loss of the released code (v4).

    ``ce * CE_smooth + nonlinear * dCor(x, z) + linear * Pearson(z) + sparsity * mean|z|``: label smoothing, the biased
    squared distance correlation, the mean squared correlation between channels over positions, L1. Where the released
    code multiplies a KL divergence by 5 the cross-entropy differs from it by a constant. L1 alone could be had by
    scaling z down while the cloud scales up; BatchNorm on the cloud makes that free, so it is not read as privacy.

    Its second stage, the cloud alone on the task alone with the edge frozen, is the `refit` share of the epochs.

    Args:
        channels: sent; 0 derives 3 in 64 of the cut's, at least 4. The published nets send 12, 6 and 4 (CNN, ResNet,
            VGG), where they replace the last edge stage by the funnel; here it stands behind the edge half.
        pool: 2 halves the resolution, as the published CNN does.
        ce: weight of the cross-entropy.
        nonlinear: weight of the distance correlation.
        linear: weight of the correlation between channels.
        sparsity: weight of the mean size of z.
        smoothing: of the labels, over the other classes.
        exclude_diagonal: leave each channel's correlation with itself out. The released code keeps it, and so rewards
            channels that are constant over space, which is a part of how it sifts.
        refit: share of the epochs for the second stage.

    Raises:
        InputError: a cut that is no feature map, when installed; an option out of range.
    """

    name: ClassVar[str] = "siftfunnel"

    def __init__(
        self,
        *,
        channels: int = 0,
        pool: int = 1,
        ce: float = 5.0,
        nonlinear: float = 2.0,
        linear: float = 2.0,
        sparsity: float = 0.03,
        smoothing: float = 0.25,
        exclude_diagonal: bool = False,
        refit: float = 0.0,
    ) -> None:
        super().__init__()
        if channels < 0 or pool not in (1, 2) or not 0 <= refit < 1 or not 0 <= smoothing < 1:
            raise InputError(
                f"expected channels >= 0, pool of 1 or 2, smoothing and refit in [0, 1), got {channels}, {pool}, "
                f"{smoothing}, {refit}; use siftfunnel:channels=8."
            )
        if min(ce, nonlinear, linear, sparsity) < 0:
            raise InputError("expected weights of at least 0; use siftfunnel:nonlinear=2.")
        self.channels, self.pool, self.smoothing, self.refit = channels, pool, float(smoothing), float(refit)
        self.ce, self.sparsity = float(ce), float(sparsity)
        self.nonlinear, self.linear = float(nonlinear), float(linear)
        self.exclude_diagonal = exclude_diagonal

    def install(self, split: Split) -> Split:
        shape = split.cut.shape
        if len(shape) != 3 or min(shape[1:]) < self.pool:
            raise InputError(f"expected a feature map (C, h, w) for a funnel, got {shape}; cut at a convolution.")
        sent = self.channels or max(LEAST, round(SENT * shape[0]))
        return graft(split, Funnel(shape[0], sent, self.pool), Expansion(sent, shape[0], self.pool))

    def stages(self) -> tuple[Stage, ...]:
        first = Stage(share=1 - self.refit)
        return (first, REFIT._replace(share=self.refit)) if self.refit else (first,)

    def task_loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return self.ce * smoothed_cross_entropy(logits, y, self.smoothing)

    def penalty(self, batch: Batch) -> Tensor:
        z = batch.z.float()
        found = self.sparsity * z.abs().mean()
        if self.nonlinear:
            found = found + self.nonlinear * distance_correlation(batch.x, z).to(z.dtype)
        if self.linear:
            found = found + self.linear * channel_correlation(z, exclude_diagonal=self.exclude_diagonal)
        return found

    def options(self) -> dict[str, Value]:
        return {
            "channels": self.channels, "pool": self.pool, "ce": self.ce, "nonlinear": self.nonlinear,
            "linear": self.linear, "sparsity": self.sparsity, "smoothing": self.smoothing,
            "exclude_diagonal": self.exclude_diagonal, "refit": self.refit,
        }  # fmt: skip


def channel_correlation(z: Tensor, *, exclude_diagonal: bool = False) -> Tensor:
    """Mean squared Pearson correlation between channels over each sample's positions (SiftFunnel's released code).

    A channel that is constant over space correlates with nothing, itself included: with the diagonal in, the floor is
    about 1 / C, less for dead channels.

    Args:
        z: (N, C, h, w).
        exclude_diagonal: only pairs of different channels, which rewards no dead one.
    """
    flat = z.flatten(2)
    flat = flat - flat.mean(2, keepdim=True)
    length = flat.square().sum(2, keepdim=True)
    live = length > DEAD * length.mean(1, keepdim=True).clamp_min(1e-30)
    unit = flat * torch.where(live, length, 1.0).rsqrt() * live
    squares = (unit @ unit.transpose(1, 2)).square()
    if not exclude_diagonal:
        return squares.mean()
    channels = z.shape[1]
    others = squares.sum((1, 2)) - squares.diagonal(dim1=1, dim2=2).sum(1)
    return (others / max(1, channels * (channels - 1))).mean()
