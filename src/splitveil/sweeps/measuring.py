"""Audits of trained splits over the seeds, and what they cost, as one record."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from splitveil.attacks.base import frozen
from splitveil.attacks.view import Knows
from splitveil.auditing import audit
from splitveil.auditing.subject import Configuration, Halfway, Subject
from splitveil.auditing.suites import FLOORS, Suite
from splitveil.auditing.summary import estimate
from splitveil.data import Dataset
from splitveil.defenses.base import Protected
from splitveil.metrics.geometry import class_radius
from splitveil.metrics.judge import Judge
from splitveil.protection import accuracy_of
from splitveil.records import Card, Floor, Measured, Row, Trial
from splitveil.seeds import derive
from splitveil.sweeps.candidate import Setting
from splitveil.sweeps.costs import edge_cost
from splitveil.sweeps.trials import Trials

IMAGES, AT_ONCE, LEAST = 2000, 250, 5


@dataclass(frozen=True, slots=True)
class Auditor:
    """Attacks trained splits, each in a folder of its own, and reads the cards.

    Attributes:
        model: name for the card.
        weights: description for the card.
        out: folder of the comparison.
        suite, knows, n, aux, aux_n, metrics, judge: see `splitveil.auditing.audit`.
    """

    trials: Trials
    model: str
    weights: str
    out: Path
    suite: Suite
    knows: Knows
    n: int
    aux: Dataset | None
    aux_n: int | None
    metrics: Sequence[str]
    judge: Judge | None

    def card(self, setting: Setting, seed: int) -> tuple[Card, Path]:
        """The card of one trained split, and where it lies; from disk where it is finished."""
        name = self.trials.name(setting, seed)
        folder = self.out / "audits" / f"{name}-{self.suite.label}"
        path = folder / "card.json"
        if path.exists():
            return Card.load(path), path
        protected = self.trials.protected(setting, seed)
        frozen(protected)
        cut, whole = protected.split.cut, Halfway(protected.split, protected.defense.rest())
        subject = Subject(
            self.model, f"{self.weights}, {setting.defense}", whole, (cut,), (Configuration(cut, protected),)
        )
        found = audit(
            subject, self.trials.data, suite=self.suite, knows=self.knows, n=self.n, aux=self.aux, aux_n=self.aux_n,
            seed=seed, samples=0, out=folder, resume=True, metrics=self.metrics, judge=self.judge,
        )  # fmt: skip
        return found.card, path

    def measured(self, setting: Setting, seeds: Sequence[int], plain: "Plain | None") -> tuple[Measured, list[Card]]:
        """All seeds together. plain: the undefended split's; None where this is it."""
        trained = [self.trials.trial(setting, seed) for seed in seeds]
        accuracies, radii = list[float](), list[float]()
        for seed in seeds:
            protected = self.trials.protected(setting, seed)
            accuracies.append(accuracy_of(protected, self.trials.data, seed))
            if (radius := _radius(protected, self.trials.data, seed)) is not None:
                radii.append(radius)
        cards, paths = zip(*(self.card(setting, seed) for seed in seeds), strict=True)
        by_psnr, by_ssim = ([_row(c, f"worst_case:{m}") for c in cards] for m in ("psnr", "ssim"))
        cost = edge_cost(protected, self.trials.data.shape)
        against = plain.accuracies if plain else accuracies
        names = [name for name in by_psnr[0].extra if all(name in r.extra for r in by_psnr)]
        seconds = statistics.median(_pace(t) for t in trained)
        return Measured(
            accuracy=estimate(accuracies),
            lost=estimate(100 * (a - b) for a, b in zip(against, accuracies, strict=True)),
            psnr=estimate(r.psnr for r in by_psnr),
            ssim=estimate(r.ssim for r in by_ssim),
            mse=estimate(r.mse for r in by_psnr),
            strongest=next(iter(cards[0].strongest.values())),
            radius=estimate(radii) if len(radii) == len(seeds) else None,
            extra={name: estimate(r.extra[name].mean for r in by_psnr) for name in names},
            edge_macs=cost.macs,
            edge_params=cost.params,
            payload_bytes=cost.payload,
            epoch_ratio=round(seconds / plain.seconds, 3) if plain else 1.0,
            unreliable=[f"seed {card.seed}: {why}" for card in cards for why in card.unreliable],
            cards=[path.relative_to(self.out).as_posix() for path in paths],
        ), list(cards)


@dataclass(frozen=True, slots=True)
class Plain:
    """The undefended split by seed: test accuracies, and seconds of training an epoch."""

    accuracies: list[float]
    seconds: float

    @classmethod
    def of(cls, measured: Measured, trained: Sequence[Trial]) -> "Plain":
        """From its record and its trainings."""
        return cls(measured.accuracy.values, statistics.median(_pace(t) for t in trained))


def floors(cards: Sequence[Card]) -> list[Floor]:
    """What the adversary guesses without the features, over the seeds."""
    found = []
    for attack in FLOORS:
        rows = [_row(card, attack) for card in cards if any(r.attack == attack for r in card.rows)]
        if rows:
            found.append(Floor(attack=attack, psnr=estimate(r.psnr for r in rows), ssim=estimate(r.ssim for r in rows)))
    return found


def _pace(trial: Trial) -> float:
    return max(trial.seconds, 1e-9) / max(1, trial.epochs)


def _row(card: Card, attack: str) -> Row:
    return next(r for r in card.rows if r.attack == attack)


def _radius(protected: Protected, data: Dataset, seed: int) -> float | None:
    """R_c^2 / D of what leaves the device for test images; None where the classes have too few."""
    x, y = torch.from_numpy(data.test.x[:IMAGES]), torch.from_numpy(data.test.y[:IMAGES])
    if int(torch.bincount(y[y >= 0], minlength=1).max()) < LEAST:
        return None
    torch.manual_seed(derive(seed, "radius"))
    with torch.no_grad():
        z = [protected.observe(protected.split.edge(part.float() / 255)) for part in x.split(AT_ONCE)]
    return class_radius(z, y, len(data.classes), least=LEAST, resamples=0).per_dimension
