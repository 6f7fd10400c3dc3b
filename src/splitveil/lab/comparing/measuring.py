"""Audits of trained splits over the seeds, and what they cost, as one record."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from splitveil.core.records import (
    CHOSEN_BY,
    FLOORS,
    Accuracy,
    Card,
    Floor,
    Further,
    Lost,
    Measured,
    Role,
    Row,
    Score,
    Trial,
    worst_case,
)
from splitveil.lab.auditing.configuration import Configuration
from splitveil.lab.auditing.judging import asked_of
from splitveil.lab.auditing.plan import Schedule
from splitveil.lab.auditing.question import Question
from splitveil.lab.auditing.subject import Subject
from splitveil.lab.auditing.summary import estimate
from splitveil.lab.auditing.worst import strongest
from splitveil.lab.comparing.candidate import PLAIN
from splitveil.lab.comparing.cards import alone, carded
from splitveil.lab.comparing.costs import edge_cost
from splitveil.lab.comparing.facts import Carded, Shown
from splitveil.lab.comparing.setting import Setting
from splitveil.lab.comparing.trials import Trials
from splitveil.lab.data import Dataset
from splitveil.lab.data.parts import partition
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.images import as_floats
from splitveil.lab.metrics import ALWAYS
from splitveil.lab.metrics.geometry import class_radius
from splitveil.lab.protection import lost, right_of
from splitveil.lab.seeds import derive
from splitveil.wire.codecs import CODECS

IMAGES, AT_ONCE, LEAST = 2000, 250, 5


@dataclass(frozen=True, slots=True)
class Auditor:
    """Attacks trained splits, each in a folder of its own, and reads the cards.

    Attributes:
        model: name for the card.
        weights: description for the card.
        out: folder of the comparison.
        question: what is asked of every audit.
    """

    trials: Trials
    model: str
    weights: str
    out: Path
    question: Question

    def check(self, seed: int) -> None:
        """Read everything that an audit is asked for, so that a wrong word stops a long run before it begins.

        Raises:
            UnknownNameError: no such attack or metric.
            InputError: an option that it does not have, or a judge that cannot judge.
            DataError: fewer images than asked for.
            ThreatModelError: no attack is within what the adversary knows.
        """
        split, asked = self.trials.fresh(seed), self.question
        configuration = Configuration(split.cut, Protected(split, DEFENSES.build(PLAIN), CODECS.build("raw")))
        subject = Subject(self.model, self.weights, split, (split.cut,), (configuration,))
        Schedule.of(subject, asked.suite, asked.knows)
        parts = partition(self.trials.data, n=asked.n, aux=asked.aux, max_aux=asked.aux_n or asked.suite.max_aux,
                          seed=seed)  # fmt: skip
        asked_of(asked.metrics, asked.judge, parts.private, subject)

    def card(self, setting: Setting, seed: int) -> tuple[Card, Path]:
        """The card of one trained split, and where it lies; from disk where it is finished."""
        data, trained = self.trials.data, self.trials.facts(setting, seed)
        weights = f"{self.weights}, {setting.defense}"
        facts = Carded.of(trained.label, (self.model, weights), (trained,), Shown.of(data), self.question, seed)
        return carded(facts, data, lambda: alone(self.trials.protected(setting, seed), self.model, weights), self.out)

    def right(self, setting: Setting, seed: int) -> Tensor:
        """Which test images one trained split answers correctly: (N,) bool."""
        return right_of(self.trials.protected(setting, seed), self.trials.data.test, seed)

    def measured(self, setting: Setting, seeds: Sequence[int], plain: "Plain | None") -> tuple[Measured, list[Card]]:
        """All seeds together. plain: the undefended split's; None where this is it."""
        trained = [self.trials.trial(setting, seed) for seed in seeds]
        accuracies, radii, rights = list[float](), list[float](), list[Tensor]()
        for seed in seeds:
            protected = self.trials.protected(setting, seed)
            rights.append(self.right(setting, seed))
            accuracies.append(rights[-1].float().mean().item())
            if (radius := _radius(protected, self.trials.data, seed)) is not None:
                radii.append(radius)
        cards, paths = zip(*(self.card(setting, seed) for seed in seeds), strict=True)
        by_psnr, by_ssim = ([_row(c, worst_case(m)) for c in cards] for m in CHOSEN_BY)
        cost = edge_cost(protected, self.trials.data.shape)
        against = plain.accuracies if plain else accuracies
        validated = plain.validations if plain else [t.validation for t in trained]
        names = [name for name in by_psnr[0].extra if all(name in r.extra for r in by_psnr)]
        seconds = _pace(trained)
        usual = plain.seconds if plain else seconds
        return Measured(
            accuracy=estimate(accuracies),
            lost=estimate(100 * (a - b) for a, b in zip(against, accuracies, strict=True)),
            tested=Accuracy.of(statistics.fmean(int(r.sum()) for r in rights), len(rights[0])),
            paired=Lost.mean([lost(a, b) for a, b in zip(plain.rights, rights, strict=True)]) if plain else None,
            within=estimate(100 * (a - b) for a, b in zip(validated, (t.validation for t in trained), strict=True)),
            psnr=estimate(r.psnr for r in by_psnr),
            ssim=estimate(r.ssim for r in by_ssim),
            mse=estimate(r.mse for r in by_psnr),
            strongest=strongest_over(cards),
            radius=estimate(radii) if len(radii) == len(seeds) else None,
            extra={name: _further([r.extra[name] for r in by_psnr]) for name in names},
            edge_macs=cost.macs,
            edge_params=cost.params,
            payload_bytes=cost.payload,
            epoch_ratio=round(seconds / usual, 3) if seconds and usual else None,
            unreliable=[f"seed {card.seed}: {why}" for card in cards for why in card.unreliable],
            cards=[path.relative_to(self.out).as_posix() for path in paths],
        ), list(cards)


@dataclass(frozen=True, slots=True)
class Plain:
    """The undefended split by seed: accuracies on test images and on those to tune by; seconds an epoch, if known.

    rights: for each seed (N,) bool, the test images that it answers correctly.
    """

    accuracies: list[float]
    validations: list[float]
    seconds: float | None
    rights: list[Tensor]

    @classmethod
    def of(cls, measured: Measured, trained: Sequence[Trial], rights: list[Tensor]) -> "Plain":
        """From its record and its trainings."""
        return cls(measured.accuracy.values, [t.validation for t in trained], _pace(trained), rights)


def floors(cards: Sequence[Card]) -> list[Floor]:
    """What the adversary guesses without inverting, over the seeds. cards: the undefended split's."""
    found = []
    for attack in FLOORS:
        rows = [_row(card, attack) for card in cards if any(r.attack == attack for r in card.rows)]
        if rows:
            found.append(Floor(attack=attack, psnr=estimate(r.psnr for r in rows), ssim=estimate(r.ssim for r in rows)))
    return found


def strongest_over(cards: Sequence[Card]) -> dict[str, str]:
    """Metric -> the one attack that leaks most on average over images and seeds. cards: of one configuration."""
    rows = [{(r.attack, r.options): r for r in card.rows if r.role is not Role.WORST} for card in cards]
    return strongest(
        [
            row.model_copy(update={m: statistics.fmean(of[key].scores[m].mean for of in rows) for m in ALWAYS})
            for key, row in rows[0].items()
            if all(key in of for of in rows)
        ]
    )


def _further(of: Sequence[Score]) -> Further:
    over = estimate(e.mean for e in of)
    return Further(
        mean=over.mean, interval=over.interval, values=over.values, unit=of[0].unit, higher_leaks=of[0].higher_leaks
    )


def _pace(trained: Sequence[Trial]) -> float | None:
    """Seconds an epoch, median of the trainings that were never interrupted; None where all were."""
    whole = [max(t.seconds, 1e-9) / max(1, t.epochs) for t in trained if t.whole]
    return statistics.median(whole) if whole else None


def _row(card: Card, attack: str) -> Row:
    return next(r for r in card.rows if r.attack == attack)


def _radius(protected: Protected, data: Dataset, seed: int) -> float | None:
    """R_c^2 / D of what leaves the device for test images; None where the classes have too few."""
    x, y = torch.from_numpy(data.test.x[:IMAGES]), torch.from_numpy(data.test.y[:IMAGES])
    if int(torch.bincount(y[y >= 0], minlength=1).max()) < LEAST:
        return None
    torch.manual_seed(derive(seed, "radius"))
    with torch.no_grad():
        z = [protected.observe(protected.split.edge(as_floats(part))) for part in x.split(AT_ONCE)]
    return class_radius(z, y, len(data.classes), least=LEAST, resamples=0).per_dimension
