"""`criterion`: every cheap number at every configuration of a subject, beside what an audit's attacks reached."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.core.progress import task
from splitveil.core.records import Card, Criterion, CutNumbers, Role
from splitveil.core.records.criterion import STRONGEST
from splitveil.lab.accelerator import Accelerator, computing
from splitveil.lab.auditing.configuration import Configuration
from splitveil.lab.auditing.criterion.correlation import correlations
from splitveil.lab.auditing.criterion.costs import costs_of
from splitveil.lab.auditing.criterion.material import Material
from splitveil.lab.auditing.criterion.numbers import FAMILIES
from splitveil.lab.auditing.facts import At, Private
from splitveil.lab.auditing.features import features_at, groups, memory_budget
from splitveil.lab.auditing.subject import Subject
from splitveil.lab.data import Dataset
from splitveil.lab.images import as_floats
from splitveil.lab.metrics.information import ESTIMATORS
from splitveil.lab.seeds import derive, digest, fingerprint, generator, hardware
from splitveil.lab.store import Facts, Results
from splitveil.lab.training import infer

IMAGES, BY = 2000, "mse"
LEAST = 200


@dataclass(frozen=True)
class Estimated(Facts):
    """The cheap numbers at one configuration."""

    made_by: ClassVar = ("splitveil.lab.auditing.criterion.measure",)
    at: At
    private: Private
    estimators: tuple[object, ...]
    seed: int

    @property
    def label(self) -> str:
        return self.at.place


@computing
def criterion(
    subject: Subject,
    data: Dataset,
    card: Card | None = None,
    *,
    n: int = IMAGES,
    seed: int = 0,
    out: Path | None = None,
    accelerator: str = "auto",
) -> Criterion:
    """Estimate, without attacking, how hard inversion is at each configuration; see `FAMILIES` for the numbers.

    The evaluator measures: it sees images and features in pairs, as no adversary does.

    Args:
        subject: as for `audit`.
        data: images are drawn from its test part.
        card: of an audit of the same subject; its attacks' errors are what the numbers are held against.
        n: images, at most the test part; estimates on fewer than a thousand are vague.
        seed: of every draw.
        out: the audit's folder, where finished configurations are kept; None for nowhere.
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``; an Apple GPU, which has no float64, is passed over.

    Raises:
        InputError: fewer than 200 images.
    """
    begun = time.perf_counter()
    check_images(data)
    n = min(n, len(data.test))
    if n < LEAST:
        raise InputError(f"expected at least {LEAST} images for the criterion, got n={n}; ask for more.")
    index = torch.randperm(len(data.test), generator=generator(seed, "criterion images"))[:n]
    images = data.test.take(index.numpy())
    guard = {"criterion": [n, seed, digest(images.x, images.y)]}
    store = Results(folder=out / "criterion" if out else None, resume=True).store(guard)
    private, estimators = Private(images), tuple(ESTIMATORS.get(name) for name in ESTIMATORS.names())
    where = Accelerator.chosen().with_doubles()
    x, labels = (t.to(where.device) for t in (as_floats(torch.from_numpy(images.x)), torch.from_numpy(images.y)))
    known, cuts = dict[str, Any](), list[CutNumbers]()
    with task("criterion", len(subject.configurations)) as show:
        for group in groups(subject, 2 * n, memory_budget()):
            facts = {c.label: Estimated(At.of(c), private, estimators, seed) for c in group}
            kept = {label: store.find(own) for label, own in facts.items()}
            waiting = list(dict.fromkeys(c.cut.name for c in group if kept[c.label] is None))
            features = features_at(subject, waiting, images.x) if waiting else {}
            for c in group:
                show(len(cuts), c.label)
                if found := kept[c.label]:
                    numbers = CutNumbers.from_json(found[0], "a kept configuration")
                else:
                    with where.used(c.protected):
                        clean = features[c.cut.name].to(where.device)
                        z = _observed(c, clean, seed)
                        answers = (_answers(c, z), _answers(c, _bare(c, clean)))
                        numbers = _numbers(Material(c, x, z, labels, *answers, len(data.classes), seed, known))
                    store.keep(facts[c.label], numbers.to_json(), {})
                cuts.append(numbers.model_copy(update={"errors": _errors(card, c)}))
    return Criterion(
        model=subject.model, weights=subject.weights, data=data.name, seed=seed, hardware=hardware(),
        seconds=round(time.perf_counter() - begun, 3), n=n, cuts=cuts, correlations=correlations(cuts),
        versions=fingerprint(), notes=[*_notes(subject, card), *store.notes],
    )  # fmt: skip


def check_images(data: Dataset) -> None:
    """Refuse, before anything runs, a data set that is too small to estimate on.

    Raises:
        InputError: fewer than 200 test images.
    """
    if len(data.test) < LEAST:
        raise InputError(
            f"expected at least {LEAST} test images for the criterion, got {len(data.test)}; give a larger data set."
        )


def _notes(subject: Subject, card: Card | None) -> list[str]:
    told = [f"errors are of the audit {card.suite}: {card.threat_model}"] if card else []
    slopes = "numbers from derivatives are of the float edge half that was quantised"
    return [*told, slopes] if subject.stand_in else told


def _observed(c: Configuration, z: Tensor, seed: int) -> Tensor:
    """What crosses for clean features z: (N, *cut), one draw."""
    torch.manual_seed(derive(seed, c.label, "criterion"))
    with torch.no_grad():
        return torch.cat([c.protected.observe(part) for part in z.split(512)])


def _bare(c: Configuration, z: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.cat([c.protected.bare(part) for part in z.split(512)])


def _answers(c: Configuration, z: Tensor) -> Tensor:
    """Logits (N, K) for features (N, *cut)."""
    return infer(c.split.cloud, z.split(512))


def _numbers(m: Material) -> CutNumbers:
    c = m.configuration
    return CutNumbers(
        **c.place._asdict(), edge_share=c.cut.edge_share, elements=m.z[0].numel(),
        numbers=[number for family in FAMILIES.values() for number in family(m)], costs=costs_of(m),
    )  # fmt: skip


def _errors(card: Card | None, c: Configuration) -> dict[str, float]:
    """Mean squared error of every attack that inverts, floors left out, and of the strongest among them."""
    found: dict[str, float] = {}
    for row in card.at(c.place) if card else []:
        if row.role is Role.ATTACK:
            found[row.attack] = min(row.scores[BY].mean, found.get(row.attack, math.inf))
    return found | ({STRONGEST: min(found.values())} if found else {})
