"""`Examiner`, who looks at guesses beside the metrics of every row; `Measure`, a number that it adds; `Asked`, all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from splitveil.core.records import Score
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.auditing.intervals import CHUNK, LEVEL, RESAMPLES, bootstrap
from splitveil.lab.images import as_floats
from splitveil.lab.metrics.base import Metric, tail_mean
from splitveil.lab.metrics.pripro import QUANTILE, least_protected
from splitveil.lab.seeds import generator

BATCH = 256


@dataclass(frozen=True, slots=True)
class Measure:
    """How per-image values become one number of a row.

    Attributes:
        name: its key in `Row.extra`.
        unit: printed with it.
        higher_leaks: whether a larger value means that more leaked.
        of: key of the per-image scores that it is made of; NaN there means that this image has no value.
        tail: whether the 5 % that leak most have a mean of their own; among hits and misses they are all hits.
        quantile: the quantile of those least protected instead of the mean.
    """

    name: str
    unit: str
    higher_leaks: bool
    of: str
    tail: bool = True
    quantile: bool = False

    def number(self, scores: Mapping[str, Tensor], seed: int) -> Score | None:
        """The number with its tail and interval; None where no image has a value. seed: of the interval."""
        values = scores[self.of]
        values = values[values.isfinite()].double()
        if not len(values):
            return None
        found = least_protected(values) if self.quantile else values.mean().item()
        interval = _quantile_interval(values, seed) if self.quantile else bootstrap(values[None], seed)[0]
        return Score(
            mean=found,
            worst=tail_mean(values, largest=self.higher_leaks) if self.tail else None,
            interval=interval,
            unit=self.unit,
            higher_leaks=self.higher_leaks,
            n=len(values),
        )


class Examiner(Protocol):
    """Something that looks at guesses of the private images: a judge, a plate reader, a user's own.

    All its attributes decide what it says, unless it has an attribute ``facts`` that holds whatever does.
    """

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What a row gets, in order."""
        ...

    @property
    def note(self) -> str:
        """For the card: who looks, and how well on the images themselves."""
        ...

    def scores(self, guess: Tensor) -> dict[str, Tensor]:
        """Key -> (N,) float32, NaN where an image has no value. guess: (N, C, H, W) in [0, 1], in their order."""
        ...


class Learner(Protocol):
    """An examiner that first learns from what an attack makes of the adversary's own images, for each attack anew."""

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What a row gets, in order."""
        ...

    @property
    def note(self) -> str:
        """For the card: what it learns from."""
        ...

    def scores(self, guess: Tensor, own: Tensor, labels: Tensor, seed: int) -> dict[str, Tensor]:
        """As an examiner's. own: (M, C, H, W) in [0, 1], of the adversary's images; labels: (M,), -1 where unknown."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """Further metrics and examiners, ready for the private images of one audit; falsy without any.

    Attributes:
        metrics: beyond those that stand in every row.
        examiners: a judge, a plate reader, in the order in which their numbers follow.
        adaptive: a judge that learns from each attack's guesses first.
    """

    metrics: tuple[Metric, ...] = ()
    examiners: tuple[Examiner, ...] = ()
    adaptive: Learner | None = None

    def __bool__(self) -> bool:
        return bool(self.metrics or self.examiners)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What a row gets, in order."""
        own = tuple(Measure(m.name, m.unit, m.higher_leaks, m.name) for m in self.metrics)
        found = own + tuple(measure for one in self.examiners for measure in one.measures)
        return found + (() if self.adaptive is None else self.adaptive.measures)

    @property
    def notes(self) -> list[str]:
        """For the card."""
        return [one.note for one in self.examiners] + ([] if self.adaptive is None else [self.adaptive.note])

    def scores(self, x: Tensor, guess: Tensor) -> dict[str, Tensor]:
        """Name -> (N,). x: (N, C, H, W) uint8, the private images; guess: (N, C, H, W) in [0, 1]."""
        pairs = list(zip(x.split(BATCH), guess.split(BATCH), strict=True))
        device = Accelerator.chosen().device
        found = {
            m.name: torch.cat([m(as_floats(a.to(device)), b.to(device)).cpu() for a, b in pairs]) for m in self.metrics
        }
        for one in self.examiners:
            found |= one.scores(guess)
        return found


def _quantile_interval(values: Tensor, seed: int) -> tuple[float, float]:
    """95 % percentile bootstrap of the quantile of those least protected. values: (n,)."""
    n, found = len(values), list[Tensor]()
    draws, at_once = generator(seed, "bootstrap", n), max(1, CHUNK // n)
    for first in range(0, RESAMPLES, at_once):
        index = torch.randint(n, (min(at_once, RESAMPLES - first), n), generator=draws)
        found.append(values[index].quantile(QUANTILE, dim=1))
    tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=values.dtype)
    low, high = torch.cat(found).quantile(tails).tolist()
    return low, high
