"""Dropout of features at inference (He et al. 2020, IEEE IoT-J)."""

from statistics import NormalDist
from typing import ClassVar

from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.defenses.base import Defense


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

    def mean(self, z: Tensor) -> Tensor:
        return (1 - self.rate) * z

    def deviation(self, z: Tensor) -> Tensor | None:
        deviation: Tensor = (self.rate * (1 - self.rate)) ** 0.5 * z.abs()
        return deviation
