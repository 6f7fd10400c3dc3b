"""The work of an audit: what is not finished yet is done, configuration by configuration."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from splitveil.core.errors import SplitVeilError
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.attacks.view import Aux
from splitveil.lab.auditing.configuration import Configuration
from splitveil.lab.auditing.examiners import Asked
from splitveil.lab.auditing.facts import Adversary, Answered, At, Attacked, Common, Inferred, Looking, Passing, Private
from splitveil.lab.auditing.features import BATCH, collect, kept_of, names_of
from splitveil.lab.auditing.plan import Schedule
from splitveil.lab.auditing.question import Question
from splitveil.lab.auditing.scoring import Secret
from splitveil.lab.auditing.setting import Crossed, Setting, Turn, forget_wire, joined, looked_through, taken
from splitveil.lab.auditing.subject import Subject
from splitveil.lab.auditing.units import LabelUnit, Unit
from splitveil.lab.data import Dataset
from splitveil.lab.data.base import Array
from splitveil.lab.data.parts import Parts
from splitveil.lab.jobs import Job, Left, Shared, Workers
from splitveil.lab.seeds import derive
from splitveil.lab.store import Store

PART = 4 * BATCH
"""Images that a worker runs the subject over at one time."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Everything that an audit found at one configuration, before the self-checks; `against`: by outside attacks."""

    configuration: Configuration
    accuracy: float
    images: list[Unit]
    labels: list[LabelUnit]
    against: list[Unit]


@dataclass(frozen=True, slots=True)
class Todo:
    """What there is to find at one configuration: facts of each part, with what makes it and its seed."""

    place: str
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
        workers: who do it.

    Attributes:
        notes: why it was done in this process, where other workers were asked for.
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
        workers: Workers | None = None,
    ) -> None:
        self.subject, self.data, self.parts, self.aux, self.question = subject, data, parts, aux, question
        self.secrets, self.seed, self.store = secrets, seed, store
        self.asked, self.workers, self.notes = asked or Asked(), workers or Workers(), list[str]()
        private, where = torch.from_numpy(parts.private.x), Accelerator.chosen()
        self.setting = Setting(subject, private, aux, question.knows, question.samples, seed, self.asked, where)
        self._tested, self._private = Private(data.test), Private(parts.private)
        self._adversary = Adversary(question.knows, parts.aux, aux.y.numpy())
        self._looking = Looking(self.asked.metrics, self.asked.examiners, self.asked.adaptive) if self.asked else None

    def finished(self, group: Sequence[Configuration], plan: Schedule) -> Iterator[Finished]:
        """Each configuration of `group`; features are computed only where something is still to be done."""
        todo = [self._todo(c, plan) for c in group]
        waiting = [c for c, t in zip(group, todo, strict=True) if not t.finished(self.store)]
        crossed = dict[str, Shared]()
        try:
            if waiting:
                accuracies, crossed = self._crossed(waiting)
                for t in todo:
                    self.store.kept(t.answered, lambda _, of=t.place: (json.dumps(accuracies[of]), {}))  # type: ignore[misc]
            jobs = [self._jobs(c, t, crossed.get(c.cut.name)) for c, t in zip(group, todo, strict=True)]
            units = iter(self.workers.run([job for own in jobs for job in own], self.store, "attacks"))
        finally:
            self.workers.forget(crossed.values())
            forget_wire()
        for c, t in zip(group, todo, strict=True):
            answer = self.store.find(t.answered)
            accuracy = float(json.loads(answer[0])) if answer is not None else accuracies[c.label]
            images = [Unit.unpacked(*next(units)) for _ in t.images]
            own = len(plan.images[c.label])
            labels = [LabelUnit.unpacked(*next(units)) for _ in t.labels]
            self.store.drop(t.common)
            yield Finished(c, accuracy, images[:own], labels, images[own:])

    @cached_property
    def _setting(self) -> Shared:
        if not self.workers.inline:
            try:
                return self.workers.reached(self.setting)
            except SplitVeilError:
                raise  # no cluster there, or one of another version
            except Exception as error:
                # A net or an examiner of the user's may need what only this process has.
                told = " ".join(str(error).split()) or type(error).__name__
                self.notes.append(f"what is audited cannot be sent to workers ({told}); done in this process")
                self.workers = Workers()
        return self.workers.share(self.setting)

    def _crossed(self, wanted: Sequence[Configuration]) -> tuple[dict[str, float], dict[str, Shared]]:
        """Accuracies by configuration, and the features of every cut where workers find them."""
        setting = self._setting
        if self.workers.inline:
            found = collect(self.subject, wanted, self.data, self.parts, self.seed)
            both = {name: Crossed(z, found.aux[name]) for name, z in found.private.items()}
            return found.accuracies, {name: self.workers.share(crossed) for name, crossed in both.items()}
        keep, others = kept_of(self.parts)
        place = np.full(len(self.data.test), -1)
        place[keep] = np.arange(len(keep))
        labels, looks, places = [c.label for c in wanted], list[Job](), list[Array]()
        for first in range(0, len(place), PART):
            part = slice(first, first + PART)
            kept = np.flatnonzero(place[part] >= 0)
            places.append(place[part][kept])
            looks.append(_look(setting, labels, self.data.test.x[part], self.data.test.y[part], kept, first))
        for first in range(0, len(others), PART):
            images = others[first : first + PART]
            looks.append(_look(setting, labels, images, None, np.arange(len(images)), len(place) + first))
        looked = self.workers.spread(looks, "features of all cuts")
        left = [shared for _, shared in looked]
        try:
            right = [json.loads(told[0]) for told, _ in looked]
            cuts = names_of(self.subject, wanted)
            joins = [
                Job(
                    facts=Passing(f"features of {name}"),
                    call=joined,
                    args=(name, len(self.parts.private_index), places, *left),
                )
                for name in cuts
            ]
            crossed = dict(zip(cuts, (shared for _, shared in self.workers.spread(joins, "features")), strict=True))
        finally:
            self.workers.forget(left)
        return {label: sum(r[label] for r in right) / len(place) for label in labels}, crossed

    def _jobs(self, c: Configuration, todo: Todo, crossed: Shared | None) -> list[Job]:
        """One for each unit. The first that shares a thing makes it, and the others wait for it."""
        found, owners = list[Job](), dict[str, Job]()
        asked = [(f, f.attack, None, s) for f, s in todo.images] + [(f, f.attack, f.secret, s) for f, s in todo.labels]
        keys = [attack.shares(stochastic=c.stochastic) for _, attack, _, _ in asked]
        for k, (facts, attack, secret, seed) in enumerate(asked):
            foreign = [key for key in keys[k] if key in owners]
            later = {key for other in keys[k + 1 :] for key in other}
            leaves = tuple(key for key in keys[k] if key not in owners and key in later)
            needs = tuple({id(owners[key]): owners[key] for key in foreign}.values())
            turn = Turn(
                c.label, attack, secret, seed, self.store.workdir(todo.common), frozenset(foreign), leaves
            )  # fmt: skip
            args = () if crossed is None else (self._setting, crossed, turn, *map(Left, needs))
            found.append(Job(facts=facts, call=taken, args=args, needs=needs))
            owners |= dict.fromkeys(leaves, found[-1])
        return found

    def _todo(self, c: Configuration, plan: Schedule) -> Todo:
        at, adversary, private = At.of(c), self._adversary, self._private
        return Todo(
            c.label,
            Answered(at, self._tested, self.seed),
            Common(at, adversary, self.seed),
            [
                (
                    Attacked(at, adversary, private, a, self._looking, self.seed, self.question.samples),
                    self._seed(c, repr(a)),
                )
                for a in (*plan.images[c.label], *plan.against)
            ],
            [
                (Inferred(at, adversary, private, a, s, self.seed), self._seed(c, repr(a), s.name))
                for a in plan.labels[c.label]
                for s in self.secrets
            ],
        )

    def _seed(self, c: Configuration, *what: str) -> int:
        return derive(self.seed, c.place.text(*what))


def _look(setting: Shared, labels: list[str], images: Array, true: Array | None, keep: Array, before: int) -> Job:
    args = (setting, labels, images, true, keep, before)
    return Job(facts=Passing(f"features from image {before}"), call=looked_through, args=args)
