"""What every metric declares, and how per-image values become the numbers of a row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from splitveil.core.records import STANDING

TAIL = 0.05
"""Share of images in the worst tail."""


def tail_mean(values: Tensor, *, largest: bool) -> float:
    """Mean over the largest (or smallest) 5 % of the values, at least one. values: (N,)."""
    count = max(1, round(TAIL * len(values)))
    return values.topk(count, largest=largest).values.mean().item()


@dataclass(frozen=True, slots=True)
class Metric:
    """A pure function of input and guess, per image.

    Attributes:
        name: as in rows.
        unit: printed with it.
        higher_leaks: whether a larger value means that more leaked.
        fn: x: (N, C, H, W) and x_hat: (N, C, H, W), both in [0, 1] -> (N,).
        kind: of data that it compares.
        state: hash of whatever decides the values beside the code and the options, such as weights; empty for nothing.
    """

    name: str
    unit: str
    higher_leaks: bool
    fn: Callable[[Tensor, Tensor], Tensor]
    state: str = ""
    kind: str = "images"

    @classmethod
    def standing(cls, name: str, fn: Callable[[Tensor, Tensor], Tensor]) -> Self:
        """One of those that stand in every row, with what its record says of it."""
        return cls(name, STANDING[name].unit, STANDING[name].higher_leaks, fn)

    def __call__(self, x: Tensor, x_hat: Tensor) -> Tensor:
        return self.fn(x, x_hat)

    def worst(self, values: Tensor) -> float:
        """Mean over the 5 % of images that leak most (at least one). values: (N,)."""
        return tail_mean(values, largest=self.higher_leaks)
