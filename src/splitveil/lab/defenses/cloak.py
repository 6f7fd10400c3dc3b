"""Cloak (Mireshghallah et al. 2021): noise learned for each feature, the louder the less the task needs it."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split
from splitveil.lab.defenses.base import Batch, Defense, Stage

START = 0.1
"""Standard deviation that a new noise has, as a share of the way from least to most."""


class Cloak(Defense):
    """``h * kept + mean + sigma * noise``, mean and sigma learned for each feature; both halves stay as they are.

    ``sigma = least + (most - least) * (1 + tanh(rho)) / 2`` in units of the features' root mean square, so that scaling
    them buys nothing; the loss is cross-entropy minus ``weight * log(mean sigma)``. After training the share `suppress`
    of the features, those with the largest sigma, is replaced by its learned mean. Without training it is
    fixed noise of the starting size.

    Args:
        weight: of the noise beside the cross-entropy.
        least: smallest sigma.
        most: largest sigma.
        suppress: share of the features that are never sent.
    """

    name: ClassVar[str] = "cloak"
    stochastic: ClassVar[bool] = True
    trains: ClassVar[frozenset[str]] = frozenset()
    scale: Tensor
    kept: Tensor

    def __init__(self, *, weight: float = 0.1, least: float = 0.01, most: float = 3.0, suppress: float = 0.0) -> None:
        super().__init__()
        if not (weight >= 0 and 0 < least < most and 0 <= suppress < 1):
            raise InputError(
                f"expected weight >= 0, 0 < least < most and suppress in [0, 1), got {weight}, {least}, {most}, "
                f"{suppress}; use cloak:weight=0.1."
            )
        self.weight, self.least, self.most, self.suppress = float(weight), float(least), float(most), float(suppress)
        self.register_buffer("scale", torch.tensor(1.0))

    def install(self, split: Split) -> Split:
        self.offset = nn.Parameter(torch.zeros(split.cut.shape))
        self.rho = nn.Parameter(torch.full(split.cut.shape, math.atanh(2 * START - 1)))
        self.register_buffer("kept", torch.ones(split.cut.shape))
        return split

    def stages(self) -> tuple[Stage, ...]:
        # The most accurate epoch would be the quietest one.
        return (Stage(trains=frozenset({"defense"}), last=True),)

    def calibrate(self, z: Tensor) -> None:
        self.scale.copy_(z.square().mean().sqrt())

    @property
    def sigma(self) -> Tensor:
        """(*cut), in units of the features' root mean square."""
        return self.least + (self.most - self.least) * (1 + torch.tanh(self.rho)) / 2

    def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
        sent = z * self.kept + self.scale * self.offset
        return sent if noise is None else sent + self.scale * self.sigma * noise

    def spread(self, z: Tensor) -> Tensor | None:
        return (self.scale * self.sigma).detach()

    def penalty(self, batch: Batch) -> Tensor:
        return -self.weight * self.sigma.mean().log()

    def finish(self, split: Split) -> Split:
        count = round(self.suppress * self.kept.numel())
        if count:
            loudest = self.sigma.detach().flatten().topk(count).indices
            self.kept.view(-1)[loudest] = 0.0
        return split
