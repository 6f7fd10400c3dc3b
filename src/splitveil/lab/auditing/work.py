"""The work of an audit: what is not finished yet is done, configuration by configuration."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch

from splitveil.lab.attacks.base import Attack, LabelAttack
from splitveil.lab.attacks.view import Aux
from splitveil.lab.auditing.configuration import Configuration
from splitveil.lab.auditing.examiners import Asked
from splitveil.lab.auditing.facts import Adversary, Answered, At, Attacked, Common, Inferred, Looking, Private
from splitveil.lab.auditing.features import Collected, collect
from splitveil.lab.auditing.plan import Schedule
from splitveil.lab.auditing.question import Question
from splitveil.lab.auditing.scoring import Secret, attacked, inferred
from splitveil.lab.auditing.subject import Subject
from splitveil.lab.auditing.units import LabelUnit, Unit
from splitveil.lab.auditing.views import Wire
from splitveil.lab.data import Dataset
from splitveil.lab.data.parts import Parts
from splitveil.lab.seeds import derive
from splitveil.lab.store import Kept, Store


@dataclass(frozen=True, slots=True)
class Finished:
    """Everything that an audit found at one configuration, before the self-checks."""

    configuration: Configuration
    accuracy: float
    images: list[Unit]
    labels: list[LabelUnit]


@dataclass(frozen=True, slots=True)
class Todo:
    """What there is to find at one configuration: facts of each part, with what makes it and its seed."""

    answered: Answered
    common: Common
    images: list[tuple[Attacked, int]]
    labels: list[tuple[Inferred, int]]

    def finished(self, store: Store) -> bool:
        """Whether nothing is left to be done."""
        parts = [self.answered, *(f for f, _ in self.images), *(f for f, _ in self.labels)]
        return all(facts in store for facts in parts)


class Work:
    """All that decides the units of an audit; `finished` makes them or finds them in the store.

    Args:
        subject: what is audited.
        data: its test part gives the task accuracy.
        parts: private and auxiliary images.
        aux: the latter as the adversary holds them.
        question: what is asked: grants and sample pictures.
        secrets: private labels to infer.
        seed: of every draw.
        store: of what is finished.
        asked: further metrics and examiners; they decide what a unit on images holds, and nothing where none is asked.
    """

    def __init__(
        self,
        subject: Subject,
        data: Dataset,
        parts: Parts,
        aux: Aux,
        question: Question,
        secrets: Sequence[Secret],
        seed: int,
        store: Store,
        asked: Asked | None = None,
    ) -> None:
        self.subject, self.data, self.parts, self.aux, self.question = subject, data, parts, aux, question
        self.secrets, self.seed, self.store = secrets, seed, store
        self.asked = asked or Asked()
        self._tested, self._private = Private(data.test), Private(parts.private)
        self._adversary = Adversary(question.knows, parts.aux, aux.y.numpy())
        self._looking = Looking(self.asked.metrics, self.asked.examiners, self.asked.adaptive) if self.asked else None

    def finished(self, group: Sequence[Configuration], plan: Schedule) -> Iterator[Finished]:
        """Each configuration of `group`; features are computed only where something is still to be done."""
        todo = [self._todo(c, plan) for c in group]
        waiting = [c for c, t in zip(group, todo, strict=True) if not t.finished(self.store)]
        features = Collected({}, {}, {})
        if waiting:
            features = collect(self.subject, waiting, self.data, self.parts, self.seed)
        for c, own in zip(group, todo, strict=True):
            yield self._configuration(c, own, features)

    def _configuration(self, c: Configuration, todo: Todo, features: Collected) -> Finished:
        x, shown = torch.from_numpy(self.parts.private.x), torch.arange(self.question.samples)

        @cache
        def wire() -> Wire:
            z, known = features.private[c.cut.name], features.aux[c.cut.name]
            images = x if c.random else None
            return Wire(c, z, known, self.aux, self.question.knows, self.seed, self.store.workdir(todo.common), images)

        def rate(_: Path | None) -> Kept:
            return json.dumps(features.accuracies[c.label]), {}

        def run(attack: Attack, seed: int, folder: Path | None) -> Kept:
            return attacked(
                attack, wire(), x, shown, seed=seed, draws=self.seed, workdir=folder, asked=self.asked
            ).packed()  # fmt: skip

        def ask(reader: LabelAttack, secret: Secret, seed: int, folder: Path | None) -> Kept:
            return inferred(reader, secret, wire(), seed=seed, draws=self.seed, workdir=folder).packed()

        accuracy = float(json.loads(self.store.kept(todo.answered, rate)[0]))
        images = [Unit.unpacked(*self.store.kept(f, partial(run, f.attack, seed))) for f, seed in todo.images]
        labels = [
            LabelUnit.unpacked(*self.store.kept(f, partial(ask, f.attack, f.secret, seed))) for f, seed in todo.labels
        ]
        self.store.drop(todo.common)
        return Finished(c, accuracy, images, labels)

    def _todo(self, c: Configuration, plan: Schedule) -> Todo:
        at, adversary, private = At.of(c), self._adversary, self._private
        return Todo(
            Answered(at, self._tested, self.seed),
            Common(at, adversary, self.seed),
            [
                (
                    Attacked(at, adversary, private, a, self._looking, self.seed, self.question.samples),
                    self._seed(c, repr(a)),
                )
                for a in plan.images[c.label]
            ],
            [
                (Inferred(at, adversary, private, a, s, self.seed), self._seed(c, repr(a), s.name))
                for a in plan.labels[c.label]
                for s in self.secrets
            ],
        )

    def _seed(self, c: Configuration, *what: str) -> int:
        return derive(self.seed, c.place.text(*what))
