"""How far an attack from outside is ahead of a suite's, and the doubt that this casts on the suite's worst case."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from splitveil.core.records import CHOSEN_BY, Doubt, Lead, Outsider, Role
from splitveil.lab.auditing.intervals import bootstrap
from splitveil.lab.auditing.units import Unit
from splitveil.lab.metrics import METRICS

BEATEN: Mapping[str, float] = {"psnr": 0.5, "ssim": 0.01}
"""A mean that lies further ahead than this, in the metric's unit, tells that the suite was not strong enough."""


def held_against(outside: Unit, units: Sequence[Unit], seed: int) -> Outsider:
    """The outsider beside the best of the suite's attacks, image by image, by each metric that chooses a worst case.

    The floors have no part in it: what they carry is no attack's merit.

    Args:
        outside: its unit.
        units: those of the suite at the same configuration.
        seed: of the intervals.
    """
    attacks = [u for u in units if u.row.role is Role.ATTACK]
    found = {
        by: _ahead(by, outside.scores[by], torch.stack([u.scores[by] for u in attacks]), seed)
        for by in CHOSEN_BY
        if attacks
    }
    row = outside.row
    return Outsider(**row.place._asdict(), attack=row.attack, options=row.options, n=row.n, ahead=found)


def _ahead(by: str, own: Tensor, others: Tensor, seed: int) -> Lead:
    """own: (N,); others: (attacks, N)."""
    metric = METRICS.build(by)
    best = others.amax(0) if metric.higher_leaks else others.amin(0)
    lead = own - best if metric.higher_leaks else best - own
    sign = 1 if metric.higher_leaks else -1
    return Lead(
        mean=lead.mean().item(),
        interval=bootstrap(lead[None], seed)[0],
        worst=sign * (metric.worst(own) - metric.worst(best)),
        share=(lead > 0).float().mean().item(),
        unit=metric.unit,
    )


def beaten(outsiders: Sequence[Outsider]) -> list[str]:
    """Reasons not to trust a worst case: outsiders who are clearly ahead of it."""
    found = list[str]()
    for outsider in outsiders:
        for by, limit in BEATEN.items():
            lead = outsider.ahead.get(by)
            if lead is not None and ((lead.mean > limit and lead.interval[0] > 0) or lead.worst > limit):
                ahead = f"{lead.mean:+.3g} {lead.unit}".strip()
                worst = f"{lead.worst:+.3g} {lead.unit}".strip()
                found.append(
                    Doubt.of(
                        "beaten from outside",
                        f"{outsider.attack} is {ahead} ahead in {by.upper()} in the mean, {worst} in the worst 5 %",
                    )
                )
    return found
