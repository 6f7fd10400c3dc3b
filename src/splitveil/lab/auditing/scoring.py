"""One attack on one configuration: run it, score it, and look at how it behaves."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splitveil.core.proportions import wilson
from splitveil.core.records import LabelRow
from splitveil.lab.attacks.base import Attack, LabelAttack
from splitveil.lab.attacks.view import Aux, View
from splitveil.lab.auditing.examiners import Asked
from splitveil.lab.auditing.rows import scored_row
from splitveil.lab.auditing.units import DRAWS, JUDGED_BY, LabelUnit, Unit, most_exposed
from splitveil.lab.auditing.views import Wire
from splitveil.lab.data.base import Array
from splitveil.lab.data.parts import Parts
from splitveil.lab.images import as_bytes, as_floats
from splitveil.lab.metrics import ALWAYS, METRICS

FACTOR = 10.0
TRIED = 32
"""Private images on which the scale of the features is tried out."""
TASK = "task"


@dataclass(frozen=True, slots=True)
class Secret:
    """A private label: truth: (N,) and known: (M,) int64, -1 where unknown; the adversary has `known` only."""

    name: str
    truth: Array
    known: Array
    classes: int


def secrets(parts: Parts, task: Array, classes: int) -> list[Secret]:
    """The task's label, with `task` (M,) for what the adversary has of it, and every attribute that both parts have."""
    found = [Secret(TASK, parts.private.y, task, classes)]
    for name, truth in parts.private.attributes.items():
        if name in parts.aux.attributes:
            known = parts.aux.attributes[name]
            found.append(Secret(name, truth, known, int(max(truth.max(), known.max())) + 1))
    return [s for s in found if (s.truth >= 0).any() and (s.known >= 0).any()]


def attacked(
    attack: Attack,
    wire: Wire,
    x: Tensor,
    shown: Tensor,
    *,
    seed: int,
    draws: int,
    workdir: Path | None,
    asked: Asked,
) -> Unit:
    """Run and score an attack on images.

    Args:
        attack: sees the wire's view only.
        wire: the configuration.
        x: (N, C, H, W) uint8, the private images.
        shown: places of the sample images; none keeps no picture at all.
        seed: of the attack.
        draws: seed of the intervals.
        workdir: for the attack's checkpoints.
        asked: further metrics and a judge; falsy for none.
    """
    with wire.placed():
        view = wire.view(seed, attack.crossings, workdir, attack.camera)
        found = attack(view)
        guess = found.x_hat.nan_to_num()
        scores = scored(x, guess)
        evidence = observed(found.evidence, finite=bool(found.x_hat.isfinite().all()))
        evidence |= few_reads(view, wire.aux)
        if not attack.scale_free:
            again = attack(wire.rescaled(seed, attack.crossings, FACTOR, TRIED, attack.camera)).x_hat.nan_to_num()
            moved = scored(x[:TRIED], again)[JUDGED_BY] - scores[JUDGED_BY][:TRIED]
            evidence["scale"] = moved.mean().item()
        scores |= asked.scores(x, guess)
        if asked.adaptive is not None:
            aside = wire.aux.held_out
            own = attack(wire.own(seed, attack.crossings, aside, attack.camera)).x_hat.nan_to_num()
            scores |= asked.adaptive.scores(guess, own, wire.aux.y[aside].cpu(), seed)
    row = scored_row(
        scores,
        draws,
        place=wire.c.place,
        attack=attack.name,
        options=repr(attack).partition(":")[2],
        needs=attack.needs.words(),
        seconds=round(found.seconds, 3),
        evidence=evidence,
        measures=asked.measures,
    )
    index = most_exposed(scores)[: None if len(shown) else 0]
    return Unit(row, scores, as_bytes(guess[shown]), index, as_bytes(guess[index]))


def inferred(
    attack: LabelAttack, secret: Secret, wire: Wire, *, seed: int, draws: int, workdir: Path | None
) -> LabelUnit:
    """Run and score an attack on one private label; arguments as for `attacked`."""
    with wire.placed():
        view = wire.view(seed, attack.crossings, workdir)
        found = attack(view, torch.from_numpy(secret.known), secret.classes)
    truth = torch.from_numpy(secret.truth)
    known = truth >= 0
    evidence = observed(found.evidence, finite=bool(found.scores.isfinite().all()))
    hits = found.scores.nan_to_num().argmax(1)[known] == truth[known]
    row = LabelRow(
        **wire.c.place._asdict(),
        attack=attack.name,
        options=repr(attack).partition(":")[2],
        needs=attack.needs.words(),
        attribute=secret.name,
        classes=secret.classes,
        n=len(hits),
        accuracy=hits.float().mean().item(),
        accuracy_interval=wilson(int(hits.sum()), len(hits)),
        chance=float(np.bincount(secret.truth[secret.truth >= 0]).max() / len(hits)),
        seconds=round(found.seconds, 3),
        evidence=evidence | few_reads(view, wire.aux),
    )
    return LabelUnit(row, hits)


def scored(x: Tensor, guess: Tensor) -> dict[str, Tensor]:
    """Metric of every row -> (N,). x: (N, C, H, W) uint8; guess: (N, C, H, W) in [0, 1]."""
    truth = as_floats(x)
    parts = list(zip(truth.split(256), guess.split(256), strict=True))
    metrics = {name: METRICS.build(name) for name in ALWAYS}
    return {name: torch.cat([m(a, b) for a, b in parts]) for name, m in metrics.items()}


def observed(told: Mapping[str, float], *, finite: bool) -> dict[str, float]:
    """What the attack told of itself; ``finite`` is 0 where that or its guess is not, and else not there."""
    evidence = {key: float(value) for key, value in told.items() if math.isfinite(value)}
    return evidence if finite and len(evidence) == len(told) else evidence | {"finite": 0.0}


def few_reads(view: View, aux: Aux) -> dict[str, float]:
    """``reads``, how often the features of each of the adversary's images were read, where that is too few.

    What a killed run had read before its last checkpoint counts, and what an attack made for others is its own.
    """
    reads = view.observed / len(aux)
    return {"reads": reads} if 0 < reads < DRAWS else {}
