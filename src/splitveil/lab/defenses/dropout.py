"""Dropout of features at inference (He et al. 2020, IEEE IoT-J)."""

from statistics import NormalDist
from typing import ClassVar

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.defenses.base import Defense
from splitveil.lab.law import Distance, Law, Masked, outside
from splitveil.wire.codecs import Codec

TOLERANCE = 0.1
"""How far off a guess's features usually are, in root mean squares of those that crossed."""


class Survivors(Masked):
    """What crossed of features that are dropped at random: what is not zero is exact, and a zero says *perhaps*.

    A feature that is zero itself crosses as zero for certain, any other one with the chance of being dropped each time.
    So a zero weighs against a guess ``-log(q + (1 - q) exp(-h^2 / 2 s^2))``, q the chance that all crossings dropped
    it and s how far off guesses usually are (our reading): nearly a square where there are many crossings, and hardly
    more than nothing where there is one.

    Args:
        chance: of a feature to be dropped in every crossing.
        codec: see `Law`.
    """

    def __init__(self, chance: float, codec: Codec | None) -> None:
        super().__init__(lambda h: h, codec)
        self.chance = chance

    def to(self, z: Tensor) -> Distance:
        exact, there = super().to(z), self.sent(z).flatten(1)
        low, high = self.cell(self.nothing(z))
        square = (z.flatten(1).square() * there).sum(1) / there.sum(1).clamp_min(1)
        unit = 2 * TOLERANCE**2 * torch.where(square > 0, square, 1.0)
        power = self.power(z)

        def far(h: Tensor) -> Tensor:
            size = outside(h.float(), low, high).square() / unit[:, None]
            cost = -(self.chance + (1 - self.chance) * (-size).exp()).log()
            return exact(h) + unit * (cost * ~there).sum(1) / power

        return far


class Dropout(Defense):
    """Each feature is zeroed with probability `rate`, afresh for every request; the others are not scaled up.

    An adversary who knows this trains on masked features, and one who sees an input again and again gets every
    feature in the end: audit with `repeat`.

    Args:
        rate: share of features that are zeroed.
    """

    name: ClassVar[str] = "dropout"
    stochastic: ClassVar[bool] = True

    def __init__(self, *, rate: float = 0.5) -> None:
        super().__init__()
        if not 0 < rate < 1:
            raise InputError(f"expected a rate between 0 and 1, got {rate}; use dropout:rate=0.5.")
        self.rate = float(rate)
        self.below = NormalDist().inv_cdf(self.rate)

    def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
        return z if noise is None else z * (noise > self.below)

    def law(self, like: Tensor, codec: Codec | None = None, times: int = 1) -> Law | None:
        return Survivors(self.rate**times, codec)

    def mean(self, z: Tensor) -> Tensor:
        return (1 - self.rate) * z

    def deviation(self, z: Tensor) -> Tensor | None:
        deviation: Tensor = (self.rate * (1 - self.rate)) ** 0.5 * z.abs()
        return deviation
