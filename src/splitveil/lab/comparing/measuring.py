"""Audits of trained splits over the seeds, and what they cost, as one record."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

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
from splitveil.lab.comparing.cards import Cards, attacked
from splitveil.lab.comparing.costs import EdgeCost
from splitveil.lab.comparing.facts import Carded, Looked, Shown
from splitveil.lab.comparing.looking import looked
from splitveil.lab.comparing.setting import Setting
from splitveil.lab.comparing.trials import Trials
from splitveil.lab.data.parts import partition
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.jobs import Job
from splitveil.lab.metrics import ALWAYS
from splitveil.lab.protection import lost
from splitveil.wire.codecs import CODECS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one setting and seed.

    right: (N,) bool, the test images that it answers correctly; radius: R_c^2 / D, None where classes have too few
    images; path: of the card.
    """

    trial: Trial
    right: Tensor
    radius: float | None
    cost: EdgeCost
    card: Card
    path: Path

    @property
    def accuracy(self) -> float:
        """On test images."""
        return self.right.float().mean().item()


@dataclass(frozen=True)
class Auditor:
    """Attacks trained splits, each in a folder of its own, and reads the cards.

    Attributes:
        trials: trains them.
        model: name for the card.
        weights: description for the card.
        out: folder of the comparison.
        question: what is asked of every audit.
        codec: what crosses, for all that name none.
    """

    trials: Trials
    model: str
    weights: str
    out: Path
    question: Question
    codec: str

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

    @cached_property
    def _shown(self) -> Shown:
        return Shown.of(self.trials.data)

    @cached_property
    def _cards(self) -> Cards:
        return Cards(self.out)

    def outcome(self, setting: Setting, seed: int) -> Outcome:
        """Of one setting and seed: trained, looked at and attacked where it was not before."""
        trials, send = self.trials, self.trials.sending
        trial, trained = trials.trial(setting, seed), trials.facts(setting, seed)
        named = self.model, f"{self.weights}, {setting.defense}"
        look = Looked(trained, self._shown)
        card = Carded.of(trained.label, named, (trained,), self._shown, self.question, seed)
        finished = look in trials.store and card in self._cards
        weights = dict[str, Tensor]() if finished else trials.weights(setting, seed)
        halves, data, epochs = send(trials.start(seed)), send(trials.data), trials.recipe.epochs
        looking = Job(facts=look, call=looked, args=(halves, setting, weights, epochs, data, seed))
        attacking = Job(
            facts=card, call=attacked,
            args=(halves, setting, weights, epochs, named, data, send(self.question), seed, self._cards.units),
        )  # fmt: skip
        (text, found), (written, _) = send.workers.each(
            [
                lambda: send.workers.run([looking], trials.store, look.label)[0],
                lambda: send.workers.run([attacking], self._cards, card.label)[0],
            ]
        )
        told, path = json.loads(text), self._cards.path(card)
        cost = EdgeCost(macs=told["macs"], params=told["params"], payload=told["payload"])
        return Outcome(trial, found["right"], told["radius"], cost, Card.from_json(written, f"{path}"), path)

    def outcomes(self, setting: Setting, seeds: Sequence[int]) -> list[Outcome]:
        """Of all seeds."""
        return self.trials.sending.workers.each([partial(self.outcome, setting, seed) for seed in seeds])

    def measured(self, found: Sequence[Outcome], plain: "Plain | None") -> Measured:
        """All seeds together. plain: the undefended split's; None where this is it."""
        trained, cards = [o.trial for o in found], [o.card for o in found]
        accuracies, radii = [o.accuracy for o in found], [o.radius for o in found if o.radius is not None]
        rights, cost = [o.right for o in found], found[-1].cost
        by_psnr, by_ssim = ([_row(c, worst_case(m)) for c in cards] for m in CHOSEN_BY)
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
            radius=estimate(radii) if len(radii) == len(found) else None,
            extra={name: _further([r.extra[name] for r in by_psnr]) for name in names},
            edge_macs=cost.macs,
            edge_params=cost.params,
            payload_bytes=cost.payload,
            epoch_ratio=round(seconds / usual, 3) if seconds and usual else None,
            unreliable=[f"seed {card.seed}: {why}" for card in cards for why in card.unreliable],
            cards=[o.path.relative_to(self.out).as_posix() for o in found],
        )


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
    def of(cls, found: Sequence[Outcome]) -> "Plain":
        """From what came of it."""
        trained = [o.trial for o in found]
        return cls(
            [o.accuracy for o in found], [t.validation for t in trained], _pace(trained), [o.right for o in found]
        )


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
