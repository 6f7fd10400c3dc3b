"""DISCO (Singh et al., CVPR 2021): a net chooses for every image which channels leave the device."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split
from splitveil.lab.defenses.base import Adversary, Batch, Defense
from splitveil.lab.defenses.parts.rival import Rival
from splitveil.lab.law import Distance, Law, Masked
from splitveil.wire.codecs import Codec

TEMPERATURE = 1 / 30
"""Of the gate, as published."""
WIDTH = 32


class Pruner(nn.Module):
    """One score for every channel: two strided convolutions, mean over positions, linear. (N, *cut) -> (N, C).

    The published one is a truncated ResNet-18 with a linear head; this is as much as a device can afford beside its
    half (our reading). Tokens (N, L, D) and flat features (N, D) have their last axis as channels and linear layers.

    Args:
        cut: shape of z for one sample.
    """

    def __init__(self, cut: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = cut[0] if len(cut) == 3 else cut[-1]
        self.body: nn.Module = (
            nn.Sequential(
                nn.Conv2d(self.channels, WIDTH, 3, 2, 1), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 3, 2, 1), nn.ReLU()
            )
            if len(cut) == 3
            else nn.Sequential(nn.Linear(self.channels, WIDTH), nn.ReLU())
        )
        self.head = nn.Linear(WIDTH, self.channels)

    def forward(self, z: Tensor) -> Tensor:
        found = self.body(z)
        if z.ndim == 4:
            found = found.mean((2, 3))
        elif z.ndim == 3:
            found = found.mean(1)
        scores: Tensor = self.head(found).float()
        return scores


class OpenChannels(Masked):
    """What crossed of features of which some channels were left out: a channel that crossed is exact, no other counts.

    A channel of zeros may have been left out, or be zero: it is taken to say nothing.
    """

    def __init__(self, codec: Codec | None) -> None:
        super().__init__(lambda h: h, codec)

    def sent(self, z: Tensor) -> Tensor:
        there = super().sent(z)
        within = tuple(range(2, z.ndim)) if z.ndim != 3 else (1,)
        return (there.any(within, keepdim=True) if within else there).expand_as(z)


class Faded(Law):
    """What crossed of features whose channels were each multiplied by a number from 0 to 1, the published gate.

    However small, the factor leaves a channel's pattern as it was. So each channel counts by how far a guess's pattern
    is from a multiple of at least 1 of what crossed, in units of the guess's own size.
    """

    def __init__(self, codec: Codec | None) -> None:
        super().__init__(lambda h: h, codec)

    def bounds(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Of each number its sign, and that it is no nearer to 0 than what crossed."""
        low, high = self.cell(z)
        return torch.where(low > 0, low, -torch.inf), torch.where(high < 0, high, torch.inf)

    def to(self, z: Tensor) -> Distance:
        axes = tuple(range(2, z.ndim)) if z.ndim != 3 else (1,)
        size = z.abs().amax(axes, keepdim=True) if axes else z.abs()
        live = size > 0
        # In units of its own size, or the square of a faint channel would be lost in rounding.
        seen = z / torch.where(live, size, 1.0)
        length = seen.square().sum(axes, keepdim=True) if axes else seen.square()

        def far(h: Tensor) -> Tensor:
            h = h.float()
            both = h * seen
            factor = (both.sum(axes, keepdim=True) if axes else both) / torch.where(live, length, 1.0)
            off = (h - torch.maximum(factor, size) * seen) * live
            middle = h.flatten(1).mean(1).reshape(-1, *[1] * (h.ndim - 1))
            power = ((h - middle) * live).detach().square().flatten(1).sum(1)
            return off.square().flatten(1).sum(1) / torch.where(power > 0, power, 1.0)

        return far


class DISCO(Defense):
    """``z = h * gate``, the gate 0 or 1 for every channel and image, by the scores of a net that is trained with it.

    Published is the soft gate ``sigmoid((s - s_thr) / T)``, T = 1/30, with s_thr the score at rank ratio * C. It leaves
    a dropped channel in z, only smaller, for whoever scales it up again. So what leaves here is the hard gate, in
    training too, while the gradient is the soft one's (our reading); ``hard=False`` is the published one.

    The edge and the cloud learn from the task alone; the pruner minimises ``(1 - alpha) * task - alpha * error`` of a
    reconstruction net beside it, here divided by 1 - alpha. The error is in units of the batch's pixel variance and its
    reward ends at `aim`: without a bound the pruner would learn to fool this one net without end. Scores come from
    features in units of their own root mean square. Which channels are 0 is itself a message about the image.

    Args:
        ratio: share of the channels that is dropped.
        alpha: weight of the reconstruction error against the task, below 1.
        aim: error at which the reward ends; 1 is that of the mean image.
        hard: 0 or 1, instead of the published soft gate.

    Raises:
        InputError: an option out of range.
    """

    name: ClassVar[str] = "disco"
    scale: Tensor

    def __init__(self, *, ratio: float = 0.6, alpha: float = 0.5, aim: float = 1.0, hard: bool = True) -> None:
        super().__init__()
        if not (0 <= ratio < 1 and 0 <= alpha < 1 and aim >= 0):
            raise InputError(
                f"expected ratio and alpha in [0, 1) and aim of at least 0, got {ratio}, {alpha}, {aim}; "
                "use disco:ratio=0.6."
            )
        self.ratio, self.alpha, self.aim, self.hard = float(ratio), float(alpha), float(aim), hard
        self.pruner: Pruner | None = None
        self.register_buffer("scale", torch.tensor(1.0))

    def install(self, split: Split) -> Split:
        self.pruner = Pruner(split.cut.shape)
        return split

    def calibrate(self, z: Tensor) -> None:
        self.scale.copy_(z.square().mean().sqrt().clamp_min(1e-12))

    def gate(self, z: Tensor) -> Tensor:
        """How much of each channel is sent. z: (N, *cut) -> (N, C)."""
        if self.pruner is None:
            raise InputError("the pruner has no weights yet; install it in a split first.")
        scores = self.pruner(z / self.scale)
        kept = max(1, scores.shape[1] - round(self.ratio * scores.shape[1]))
        margin = scores - scores.topk(kept, dim=1).values[:, -1:].detach()
        soft = torch.sigmoid(margin / TEMPERATURE)
        return (margin >= 0).to(soft) + soft - soft.detach() if self.hard else soft

    def law(self, like: Tensor, codec: Codec | None = None, times: int = 1) -> Law | None:
        return OpenChannels(codec) if self.hard else Faded(codec)

    def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
        gate = self.gate(z)
        return z * (gate[:, :, None, None] if z.ndim == 4 else gate[:, None] if z.ndim == 3 else gate)

    def adversary(self, cut: tuple[int, ...], image: tuple[int, int, int], classes: int) -> Adversary | None:
        return Rival(cut, image)

    def penalty(self, batch: Batch) -> Tensor:
        if batch.guess is None or not self.alpha:
            return super().penalty(batch)
        # The edge's features without their gradient: this term moves the pruner alone.
        guess = batch.guess(self.apply_noise(batch.h.detach(), None)).image.float()
        error = F.mse_loss(guess, batch.x) / batch.x.var(0, unbiased=False).mean().clamp_min(1e-12)
        return self.alpha / (1 - self.alpha) * F.relu(self.aim - error)
