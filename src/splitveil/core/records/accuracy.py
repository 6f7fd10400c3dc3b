"""Accuracy and accuracy lost, each with its interval and the number of images."""

from collections.abc import Sequence
from statistics import fmean
from typing import Self

from pydantic import Field

from splitveil.core.proportions import paired, wilson
from splitveil.core.records.base import Record


class Accuracy(Record):
    """A share of images with the right answer, and how sure it is."""

    share: float = Field(description="0 to 1")
    n: int = Field(description="images asked")
    interval: tuple[float, float] = Field(description="95 % over images (Wilson 1927)")

    @classmethod
    def of(cls, right: float, n: int) -> Self:
        """`right` of `n` images; a mean over seeds, which all have the same images, need not be whole.

        Raises:
            InputError: no image, or more right than there are.
        """
        return cls(share=right / max(1, n), n=n, interval=wilson(right, n))

    @classmethod
    def known(cls, share: float | None, n: int) -> Self | None:
        """Of a share that an older record or a float32 mean holds; None where it or the number of images is missing."""
        return None if share is None or n < 1 else cls.of(min(n, max(0, round(share * n, 3))), n)

    def __str__(self) -> str:
        """``92.31% (91.77 to 92.82)``: in per cent, with the interval."""
        low, high = (100 * end for end in self.interval)
        return f"{self.share:.2%} ({low:.2f} to {high:.2f})"


class Lost(Record):
    """Accuracy that one net has more than another one, both asked the same images."""

    points: float = Field(description="100 is all of it; below 0 where the other one is better")
    n: int = Field(description="images asked")
    interval: tuple[float, float] = Field(description="95 % over images, paired (Newcombe 1998, method 10), in points")

    @classmethod
    def of(cls, both: int, first: int, second: int, neither: int) -> Self:
        """From how many images both have right, only the first net, only the second, none of them.

        Raises:
            InputError: a negative count, or no image.
        """
        low, high = paired(both, first, second, neither)
        n = both + first + second + neither
        return cls(points=100 * (first - second) / n, n=n, interval=(100 * low, 100 * high))

    @classmethod
    def mean(cls, found: Sequence[Self]) -> Self:
        """Over seeds. Ends are averaged: the images are the same, so that more seeds tell no more about those."""
        low, high = (fmean(one.interval[k] for one in found) for k in (0, 1))
        return cls(points=fmean(one.points for one in found), n=found[0].n, interval=(low, high))

    @property
    def told(self) -> bool:
        """Whether the images tell the two nets apart."""
        return not self.interval[0] <= 0 <= self.interval[1]

    def __str__(self) -> str:
        """``0.79 points (0.21 to 1.38)``."""
        return f"{self.points:.2f} points ({self.interval[0]:.2f} to {self.interval[1]:.2f})"
