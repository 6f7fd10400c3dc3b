"""The worst case per image: for each image the attack that leaks most of it by one metric.

Whoever chooses so knows the truth: this is the upper envelope over the attacks, not one adversary. Each row is made by
one metric and all its numbers are those of the attacks so chosen, never a mixture of the best of each metric.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from splitveil.auditing.units import Unit
from splitveil.metrics import METRICS
from splitveil.records import Row

CHOSEN_BY = ("psnr", "ssim")


def worst_cases(units: Sequence[Unit]) -> list[Unit]:
    """One unit for each metric in `CHOSEN_BY`, over all attacks of one configuration, the floors included."""
    return [_worst(units, metric) for metric in CHOSEN_BY]


def _worst(units: Sequence[Unit], by: str) -> Unit:
    metric = METRICS.build(by)
    values = torch.stack([u.scores[by] for u in units])
    chosen = values.argmax(0) if metric.higher_leaks else values.argmin(0)
    scores: Mapping[str, Tensor] = {
        name: torch.stack([u.scores[name] for u in units]).gather(0, chosen[None])[0] for name in units[0].scores
    }
    samples = torch.stack([u.samples for u in units])
    shown = torch.arange(samples.shape[1])
    first = units[0].row
    row = Row(
        cut=first.cut,
        defense=first.defense,
        codec=first.codec,
        attack=f"worst_case:{by}",
        needs=sorted({need for u in units for need in u.row.needs}),
        n=first.n,
        mse=scores["mse"].mean().item(),
        psnr=scores["psnr"].mean().item(),
        ssim=scores["ssim"].mean().item(),
        psnr_worst5=METRICS.build("psnr").worst(scores["psnr"]),
        ssim_worst5=METRICS.build("ssim").worst(scores["ssim"]),
        seconds=round(sum(u.row.seconds for u in units), 3),
        unreliable=sorted({why for u in units for why in u.row.unreliable if not why.startswith("below the floor")}),
    )
    return Unit(row, scores, samples[chosen[: len(shown)], shown])
