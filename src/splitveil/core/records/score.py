"""`Score`: what a metric says of one row; `STANDING`: the metrics of every row on images, and what is true of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from splitveil.core.records.base import Record


class Score(Record):
    """One number of a row, with its tail and interval."""

    mean: float = Field(description="over images, or the quantile where the name says so")
    worst: float | None = Field(default=None, description="mean over the 5 % that leak most; None for hits and misses")
    interval: tuple[float, float] | None = Field(default=None, description="95 % bootstrap over images")
    unit: str
    higher_leaks: bool
    n: int = Field(description="images that it could be computed for")

    def number(self, *, tail: bool) -> float:
        """The mean, or that over the images that leak most, where there is one."""
        return self.worst if tail and self.worst is not None else self.mean


@dataclass(frozen=True, slots=True)
class Standing:
    """A metric that stands in every row, under keys of its own in JSON.

    Attributes:
        unit: printed with it.
        higher_leaks: whether a larger value means that more leaked.
        chooses: it makes a worst case, may be a limit of a plan, and has a tail.
    """

    unit: str
    higher_leaks: bool
    chooses: bool = False


STANDING = {
    "mse": Standing("per element", higher_leaks=False),
    "psnr": Standing("dB", higher_leaks=True, chooses=True),
    "ssim": Standing("1", higher_leaks=True, chooses=True),
}
CHOSEN_BY = tuple(name for name, metric in STANDING.items() if metric.chooses)
"""Metrics by which a worst case chooses."""
LIMITS = {f"{name}{end}": (name, bool(end)) for name in reversed(CHOSEN_BY) for end in ("", "_worst")}
"""Limits of a plan: ``ssim_worst`` -> metric, and whether it is about the 5 % of the images that leak most."""
LEAKAGE = tuple(LIMITS)


def flat(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Fields of a `Row` that hold these scores."""
    found: dict[str, Any] = {"extra": {name: score for name, score in scores.items() if name not in STANDING}}
    for name, metric in STANDING.items():
        found |= {name: scores[name].mean, f"{name}_interval": scores[name].interval}
        found |= {f"{name}_worst5": scores[name].worst} if metric.chooses else {}
    return found


def standing(fields: Mapping[str, Any], n: int) -> dict[str, Score]:
    """The inverse of `flat`, without what is in ``extra``. n: images."""
    return {
        name: Score(
            mean=fields[name], worst=fields.get(f"{name}_worst5"), interval=fields[f"{name}_interval"],
            unit=metric.unit, higher_leaks=metric.higher_leaks, n=n,
        )
        for name, metric in STANDING.items()
    }  # fmt: skip
