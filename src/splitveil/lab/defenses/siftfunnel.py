"""SiftFunnel (Liu et al. 2025, arXiv 2501.00824): a funnel on the edge, and limits on what it lets through."""

from typing import ClassVar

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split
from splitveil.lab.cut.grafted import graft
from splitveil.lab.defenses.base import Batch, Defense, Stage
from splitveil.lab.defenses.label_smoothing import smoothed_cross_entropy
from splitveil.lab.defenses.parts.funnel import Expansion, Funnel, without_last_stages
from splitveil.lab.metrics.dependence import distance_correlation

REFIT = Stage("refit", trains=frozenset({"cloud"}), rate=0.1, task_only=True)
"""The second stage."""
LEAST = 4
"""Channels that a derived funnel sends at least."""
SENT = 3 / 64
"""Of the cut's channels: 6 of 128, as the published ResNet."""
DEEPEST = 4
"""Halvings that a funnel may stand in for."""
DEAD = 1e-6
"""Spatial variance, relative to the mean over channels, below which a channel counts as dead."""


class SiftFunnel(Defense):
    """Few channels, and of those no more than the task needs: the loss of the released code (v4).

    ``ce * CE_smooth + nonlinear * dCor(x, z) + linear * Pearson(z) + sparsity * mean|z|``: label smoothing, the biased
    squared distance correlation, the mean squared correlation between channels over positions, L1. Where the released
    code multiplies a KL divergence by 5 the cross-entropy differs from it by a constant. L1 alone could be had by
    scaling z down while the cloud scales up; BatchNorm on the cloud makes that free, so it is not read as privacy.

    Its second stage, the cloud alone on the task alone with the edge frozen, is the `refit` share of the epochs.

    What it keeps of the published nets at 64x64, cut behind 128 channels (our derivation, by rule and not by name):

    * CNN (blocks of convolution, BatchNorm, pooling, ReLU), ``channels=12``: the published edge half to the weight,
      12x16x16 from 10,354 parameters instead of 76,032.
    * ResNet-18 at layer2, ``channels=6``: stem, then funnel, 6x32x32. The published one has two convolutions of its own
      between them (231,832 parameters that compute something); here there are none, 5,340 in all.
    * VGG behind its second stage, ``channels=4,replace=0``: two stages, then funnel, 4x16x16. The published funnel
      begins with a 3x3 (300,574 parameters); here it is the 1x1 of the others, 267,410 in all.

    Args:
        channels: sent; 0 derives 3 in 64 of the cut's, at least 4. The published nets send 12, 6 and 4 (CNN, ResNet,
            VGG).
        pool: 2 sends half the resolution of the cut.
        replace: halvings of the resolution that the funnel stands in for: the edge half ends where its maps were
            ``2 ** replace`` times as high and wide as the cut, and the funnel pools the rest. 0 puts it behind the
            whole edge half; -1 is 1 where the edge half has such a place, else 0.
        ce: weight of the cross-entropy.
        nonlinear: weight of the distance correlation.
        linear: weight of the correlation between channels.
        sparsity: weight of the mean size of z.
        smoothing: of the labels, over the other classes.
        exclude_diagonal: leave each channel's correlation with itself out. The released code keeps it, and so rewards
            channels that are constant over space, which is a part of how it sifts.
        refit: share of the epochs for the second stage.

    Raises:
        InputError: a cut that is no feature map or nothing to replace, when installed; an option out of range.
    """

    name: ClassVar[str] = "siftfunnel"

    def __init__(
        self,
        *,
        channels: int = 0,
        pool: int = 1,
        replace: int = -1,
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
        if not -1 <= replace <= DEEPEST:
            raise InputError(f"expected replace from -1 to {DEEPEST}, got {replace}; use siftfunnel:replace=0.")
        if min(ce, nonlinear, linear, sparsity) < 0:
            raise InputError("expected weights of at least 0; use siftfunnel:nonlinear=2.")
        self.channels, self.pool, self.replace = channels, pool, replace
        self.smoothing, self.refit = float(smoothing), float(refit)
        self.ce, self.sparsity = float(ce), float(sparsity)
        self.nonlinear, self.linear = float(nonlinear), float(linear)
        self.exclude_diagonal = exclude_diagonal

    def install(self, split: Split) -> Split:
        shape = split.cut.shape
        if len(shape) != 3 or min(shape[1:]) < self.pool:
            raise InputError(f"expected a feature map (C, h, w) for a funnel, got {shape}; cut at a convolution.")
        sent = self.channels or max(LEAST, round(SENT * shape[0]))
        shorter = without_last_stages(split, abs(self.replace)) if self.replace else None
        if shorter is None and self.replace > 0:
            raise InputError(
                f"expected an edge half with maps {2**self.replace} times the size of the cut {split.cut.name!r}, "
                f"{shape[1]}x{shape[2]}, found none; use siftfunnel:replace=0."
            )
        taken = shape[0] if shorter is None else shorter.cut.shape[0]
        pool = self.pool if shorter is None else self.pool * 2 ** abs(self.replace)
        return graft(split, Funnel(taken, sent, pool), Expansion(sent, shape[0], self.pool), shorter)

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
