"""The worst case per image over all attacks, and the single strongest attack beside it.

Worst case: for each image the attack that leaks most of it by one metric. Whoever chooses so knows the truth: this is
the upper envelope over the attacks, not one adversary. Each row is made by one metric and all its numbers are those of
the attacks so chosen, never a mixture of the best of each metric.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from splitveil.core.records import CHOSEN_BY, Role, Row, Score, worst_case
from splitveil.lab.auditing.checks import ATTACKS, FLOORS, check_tail, inherited
from splitveil.lab.auditing.examiners import Measure
from splitveil.lab.auditing.intervals import bootstrap
from splitveil.lab.auditing.rows import scored_row
from splitveil.lab.auditing.units import EXPOSED_BY, Unit, most_exposed
from splitveil.lab.metrics import ALWAYS, METRICS


def worst_cases(units: Sequence[Unit], seed: int, measures: Sequence[Measure] = ()) -> list[Unit]:
    """One unit for each metric in `CHOSEN_BY`, over all attacks of one configuration, the floors included."""
    return [best_of(units, metric, seed, measures) for metric in CHOSEN_BY]


def best_of(units: Sequence[Unit], by: str, seed: int, measures: Sequence[Measure] = ()) -> Unit:
    """For each image the unit that leaks most of it by the metric `by`, the floors among them.

    Further `measures` are those of the guesses so chosen; none of them chooses.

    The images that leak most are kept by PSNR, of the attacks alone: a floor exposes nobody, however near it happens to
    come. Such an image is among the most exposed of the attack that was chosen for it. That does not hold where another
    metric chooses, so there are none then.
    """
    metric = METRICS.build(by)
    values = torch.stack([u.scores[by] for u in units])
    chosen = values.argmax(0) if metric.higher_leaks else values.argmin(0)
    scores = {name: torch.stack([u.scores[name] for u in units]).gather(0, chosen[None])[0] for name in units[0].scores}
    samples = torch.stack([u.samples for u in units])
    shown = torch.arange(samples.shape[1])
    rows = [u.row for u in units]
    envelope = _apart(units, by, seed)
    row = scored_row(
        scores,
        seed,
        place=rows[0].place,
        attack=worst_case(by),
        needs=sorted({need for r in rows for need in r.needs}),
        seconds=round(sum(r.seconds for r in rows), 3),
        unreliable=[*inherited(rows), *check_tail(envelope, by)],
        measures=measures,
    ).model_copy(update={"envelope": envelope})
    index, worst = torch.empty(0, dtype=torch.int64), units[0].worst[:0]
    attacks = [u for u in units if u.row.role is Role.ATTACK]
    if by == EXPOSED_BY and attacks and len(attacks[0].worst_index):
        own = torch.stack([u.scores[by] for u in attacks])
        whose = own.argmax(0)
        index = most_exposed({EXPOSED_BY: own.amax(0)})
        worst = torch.stack([_guess(attacks[int(whose[i])], int(i)) for i in index])
    return Unit(row, scores, samples[chosen[: len(shown)], shown], index, worst)


def _apart(units: Sequence[Unit], by: str, seed: int) -> dict[str, Score]:
    """The worst case over the attacks alone and over the floors alone, where there are any."""
    metric, found = METRICS.build(by), dict[str, Score]()
    for what, role in ((ATTACKS, Role.ATTACK), (FLOORS, Role.FLOOR)):
        own = [u.scores[by] for u in units if u.row.role is role]
        if own:
            stacked = torch.stack(own)
            best = stacked.amax(0) if metric.higher_leaks else stacked.amin(0)
            (interval,) = bootstrap(best[None], seed)
            found[what] = Score(
                mean=best.mean().item(), worst=metric.worst(best), interval=interval, unit=metric.unit,
                higher_leaks=metric.higher_leaks, n=len(best),
            )  # fmt: skip
    return found


def strongest(rows: Sequence[Row]) -> dict[str, str]:
    """Metric -> the one attack that leaks most on average among `rows` of one configuration, floors included.

    It is named with its options where another has its name.
    """
    means: dict[str, Mapping[str, float]] = {}
    often = Counter(r.attack for r in rows)
    for r in rows:
        name = f"{r.attack}:{r.options}" if often[r.attack] > 1 and r.options else r.attack
        means[name] = {metric: r.scores[metric].mean for metric in ALWAYS}
    best = {}
    for metric in ALWAYS:
        pick = max if METRICS.build(metric).higher_leaks else min
        best[metric] = pick(means, key=lambda name: means[name][metric])
    return best


def _guess(unit: Unit, image: int) -> Tensor:
    return unit.worst[unit.worst_index.tolist().index(image)]
