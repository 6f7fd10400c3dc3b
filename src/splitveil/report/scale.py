"""Axes of charts: values to positions, with round ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from splitveil.report.words import MINUS


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: its place on paper, its text, and a second smaller text below."""

    at: float
    text: str
    below: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from [low, high] to [start, end] on paper; values beyond are put at the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self, count: int = 5) -> list[Tick]:
        """About `count` marks at round values."""
        step = round_step((self.high - self.low) / count)
        digits = max(0, -math.floor(math.log10(step)))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        values = [i * step for i in range(first, last + 1)]
        return [Tick(self(v), f"{v:.{digits}f}".replace("-", MINUS)) for v in values]


def round_step(rough: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))


def round_scale(values: Sequence[float], start: float, end: float, *, top: float | None = None) -> Scale:
    """A scale that holds all values, widened to round numbers; `top` fixes its upper end."""
    low, high = min(values), max(values) if top is None else top
    step = round_step(max(high - low, 1e-2) / 5)
    low = math.floor(low / step + 1e-9) * step
    high = math.ceil(high / step - 1e-9) * step if top is None else top
    return Scale(low, high if high > low else low + step, start, end)
