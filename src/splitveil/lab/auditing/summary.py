"""Means and 95 % intervals (Student's t) over the cards of several seeds."""

import math
from collections.abc import Iterable, Sequence
from itertools import chain

from splitveil.core.records import Accuracy, Card, Estimate, LabelRow, Place, Row, Summary, SummaryRow

STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""97.5 % quantile of Student's t for 1 to 30 degrees of freedom; 2.042 is on the safe side beyond them."""


def summarise(cards: Sequence[Card]) -> Summary:
    """Means and 95 % intervals over the seeds of `cards`, which differ in nothing else; rows in order of the first."""
    first = cards[0]
    rows: dict[tuple[Place, str, str, str], list[tuple[int, Row | LabelRow]]] = {}
    for card in cards:
        for row in chain[Row | LabelRow](card.rows, card.inferences):
            attribute = row.attribute if isinstance(row, LabelRow) else ""
            key = row.place, row.attack, row.options, attribute
            rows.setdefault(key, []).append((card.seed, row))
    return Summary(
        model=first.model,
        weights=first.weights,
        data=first.data,
        threat_model=first.threat_model,
        suite=first.suite,
        seeds=[card.seed for card in cards],
        private_n=first.private_n,
        rows=[_summary(key, found) for key, found in rows.items()],
        accuracies={k: estimate(c.accuracies[k] for c in cards if k in c.accuracies) for k in first.accuracies},
        tested={k: _tested([c.tested[k] for c in cards]) for k in first.tested if all(k in c.tested for c in cards)},
        bundle=first.bundle,
    )


def student(free: int) -> float:
    """97.5 % quantile of Student's t for so many degrees of freedom, 1 or more."""
    return STUDENT[min(free, len(STUDENT)) - 1]


def estimate(values: Iterable[float]) -> Estimate:
    """Mean and 95 % interval of a handful of values, taken as draws of a normal (Student 1908); none for one value."""
    found = list(values)
    mean, free = math.fsum(found) / len(found), len(found) - 1
    if not free:
        return Estimate(mean=mean, interval=None, values=found)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in found) / free)
    half = student(free) * spread / math.sqrt(len(found))
    return Estimate(mean=mean, interval=(mean - half, mean + half), values=found)


def _tested(found: Sequence[Accuracy]) -> Accuracy:
    return Accuracy.of(math.fsum(a.share for a in found) / len(found) * found[0].n, found[0].n)


def _summary(key: tuple[Place, str, str, str], found: Sequence[tuple[int, Row | LabelRow]]) -> SummaryRow:
    place, attack, options, attribute = key
    numbers = [r.numbers if isinstance(r, Row) else {"accuracy": r.accuracy} for _, r in found]
    return SummaryRow(
        **place._asdict(),
        attack=attack,
        options=options,
        attribute=attribute,
        measures={m: estimate(of[m] for of in numbers) for m in numbers[0]},
        unreliable=[f"seed {seed}: {why}" for seed, row in found for why in row.unreliable],
    )
