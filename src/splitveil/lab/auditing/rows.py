"""The numbers of one row, from the scores of its images."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from splitveil.core.records import Place, Row, Score
from splitveil.core.records.score import flat
from splitveil.lab.auditing.examiners import Measure
from splitveil.lab.auditing.intervals import bootstrap
from splitveil.lab.auditing.units import EXPOSED_BY
from splitveil.lab.metrics import ALWAYS, METRICS


def scored_row(
    scores: Mapping[str, Tensor],
    seed: int,
    *,
    place: Place,
    attack: str,
    needs: list[str],
    seconds: float,
    options: str = "",
    evidence: Mapping[str, float] | None = None,
    unreliable: Sequence[str] = (),
    measures: Sequence[Measure] = (),
) -> Row:
    """A row with means, worst 5 % and intervals of its scores. scores: metric -> (N,); seed: of the intervals."""
    intervals = dict(zip(ALWAYS, bootstrap(torch.stack([scores[m] for m in ALWAYS]), seed), strict=True))
    found = {
        metric.name: Score(
            mean=scores[metric.name].mean().item(), worst=metric.worst(scores[metric.name]),
            interval=intervals[metric.name], unit=metric.unit, higher_leaks=metric.higher_leaks,
            n=len(scores[metric.name]),
        )
        for metric in map(METRICS.build, ALWAYS)
    }  # fmt: skip
    found |= {m.name: number for m in measures if (number := m.number(scores, seed)) is not None}
    return Row(
        **place._asdict(),
        attack=attack,
        options=options,
        needs=needs,
        n=len(scores[EXPOSED_BY]),
        **flat(found),
        seconds=seconds,
        evidence=dict(evidence or {}),
        unreliable=list(unreliable),
    )
