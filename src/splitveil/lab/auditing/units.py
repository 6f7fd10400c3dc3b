"""Units of an audit, an attack on a configuration each: what an audit keeps, and what makes two of them the same."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from splitveil.core.records import LabelRow, Row

EXPOSED, EXPOSED_BY = 5, "psnr"
"""Images kept of those that an attack leaks most, and the metric that says so."""
JUDGED_BY = "psnr"
"""What self-checks look at: in decibels, as their thresholds are."""
DRAWS = 2
"""Of the noise, that an attack averages at least, or has of each image's features."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A finished row with what lies behind it; no picture where the audit keeps none.

    Attributes:
        row: without the self-checks, which look at the other rows too.
        scores: metric -> (N,).
        samples: guesses for the sample images, (k, C, H, W) uint8.
        worst_index: places of the images that leak most by PSNR, most first, equals by place; (5,) or fewer.
        worst: guesses for them, (5, C, H, W) uint8 or fewer.
    """

    row: Row
    scores: Mapping[str, Tensor]
    samples: Tensor
    worst_index: Tensor
    worst: Tensor

    def packed(self) -> tuple[str, dict[str, Tensor]]:
        """As JSON and tensors."""
        pictures = {"samples": self.samples, "worst_index": self.worst_index, "worst": self.worst}
        return self.row.to_json(), {**{f"score.{k}": v for k, v in self.scores.items()}, **pictures}

    @classmethod
    def unpacked(cls, text: str, tensors: Mapping[str, Tensor]) -> Self:
        """From what `packed` gave."""
        scores = {k.removeprefix("score."): v for k, v in tensors.items() if k.startswith("score.")}
        row = Row.from_json(text, "a kept unit")
        return cls(row, scores, tensors["samples"], tensors["worst_index"], tensors["worst"])

    def doubted(self, reasons: list[str]) -> Self:
        """The same with these reasons not to trust it."""
        return replace(self, row=self.row.model_copy(update={"unreliable": reasons}))


@dataclass(frozen=True, slots=True)
class LabelUnit:
    """A finished label row. hits: (n,) bool, one for each private image whose label is known."""

    row: LabelRow
    hits: Tensor

    def packed(self) -> tuple[str, dict[str, Tensor]]:
        """As JSON and tensors."""
        return self.row.to_json(), {"hits": self.hits}

    @classmethod
    def unpacked(cls, text: str, tensors: Mapping[str, Tensor]) -> Self:
        """From what `packed` gave."""
        return cls(LabelRow.from_json(text, "a kept unit"), tensors["hits"])

    def doubted(self, reasons: list[str]) -> Self:
        """The same with these reasons not to trust it."""
        return replace(self, row=self.row.model_copy(update={"unreliable": reasons}))


def most_exposed(scores: Mapping[str, Tensor]) -> Tensor:
    """Places of the five images that leak most, equals in order of place. scores: metric -> (N,); (5,) or fewer."""
    return scores[EXPOSED_BY].argsort(descending=True, stable=True)[:EXPOSED]
