"""The work of an audit: what is not finished yet is done, configuration by configuration."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from splitveil.lab.attacks.base import Attack, LabelAttack
from splitveil.lab.attacks.view import Aux, Knows
from splitveil.lab.auditing import identity
from splitveil.lab.auditing.features import Collected, collect
from splitveil.lab.auditing.judging import Asked
from splitveil.lab.auditing.ledger import Kept, Ledger
from splitveil.lab.auditing.plan import Schedule
from splitveil.lab.auditing.scoring import Secret, attacked, inferred
from splitveil.lab.auditing.subject import Configuration, Subject
from splitveil.lab.auditing.units import LabelUnit, Unit
from splitveil.lab.auditing.views import Wire
from splitveil.lab.data import Dataset
from splitveil.lab.data.parts import Parts
from splitveil.lab.seeds import derive, fingerprint, hardware, named


@dataclass(frozen=True, slots=True)
class Finished:
    """Everything that an audit found at one configuration, before the self-checks."""

    configuration: Configuration
    accuracy: float
    images: list[Unit]
    labels: list[LabelUnit]


class Work:
    """All that decides the units of an audit; `finished` makes them or finds them in the ledger.

    Args:
        subject: what is audited.
        data: its test part gives the task accuracy.
        parts: private and auxiliary images.
        aux: the latter as the adversary holds them.
        knows: its grants.
        secrets: private labels to infer.
        seed: of every draw.
        samples: private images to keep pictures of.
        ledger: of what is finished.
        asked: further metrics and a judge; they decide what a unit on images holds, and nothing where none is asked.
    """

    def __init__(
        self,
        subject: Subject,
        data: Dataset,
        parts: Parts,
        aux: Aux,
        knows: Knows,
        secrets: Sequence[Secret],
        seed: int,
        samples: int,
        ledger: Ledger,
        asked: Asked | None = None,
    ) -> None:
        self.subject, self.data, self.parts, self.aux, self.knows = subject, data, parts, aux, knows
        self.secrets, self.seed, self.samples, self.ledger = secrets, seed, samples, ledger
        self.asked = asked or Asked()
        self._states = {c.label: identity.of_configuration(c) for c in subject.configurations}
        machine = {"versions": fingerprint(), "hardware": hardware(), "seed": seed}
        self._tested = {**machine, "data": identity.of_images(data.test)}
        self._known = {**machine, "knows": knows.words(), "data": [identity.of_images(parts.aux), str(aux.y.tolist())]}
        self._attacked = {**self._known, "private": identity.of_images(parts.private), "samples": samples}
        self._scored = {**self._attacked, "asked": self.asked.identity} if self.asked else self._attacked

    def finished(self, group: Sequence[Configuration], plan: Schedule) -> Iterator[Finished]:
        """Each configuration of `group`; features are computed only where something is still to be done."""
        held = {c.label: {name: self.ledger.find(name) for name in self._names(c, plan)} for c in group}
        waiting = [c for c in group if None in held[c.label].values()]
        features = Collected({}, {}, {})
        if waiting:
            features = collect(self.subject, waiting, self.data, self.parts, self.seed)
        for c in group:
            yield self._configuration(c, plan, held[c.label], features)

    def _configuration(
        self, c: Configuration, plan: Schedule, held: Mapping[str, Kept | None], features: Collected
    ) -> Finished:
        common, rate = self._name(c, "shared"), self._name(c, "accuracy")
        x, shown = torch.from_numpy(self.parts.private.x), torch.arange(self.samples)

        @cache
        def wire() -> Wire:
            z, known = features.private[c.cut.name], features.aux[c.cut.name]
            images = x if c.random else None
            return Wire(c, z, known, self.aux, self.knows, self.seed, self.ledger.workdir(common), images)

        if (kept := held[rate]) is None:
            kept = json.dumps(features.accuracies[c.label]), {}
            self.ledger.keep(rate, *kept)
        images, labels = list[Unit](), list[LabelUnit]()
        for name, attack, seed in self._images(c, plan):
            if (found := held[name]) is None:
                folder = self.ledger.workdir(name)
                unit = attacked(attack, wire(), x, shown, seed=seed, draws=self.seed, workdir=folder, asked=self.asked)
                self.ledger.keep(name, *unit.packed())
            else:
                unit = Unit.unpacked(*found)
            images.append(unit)
        for name, reader, secret, seed in self._labels(c, plan):
            if (found := held[name]) is None:
                folder = self.ledger.workdir(name)
                answer = inferred(reader, secret, wire(), seed=seed, draws=self.seed, workdir=folder)
                self.ledger.keep(name, *answer.packed())
            else:
                answer = LabelUnit.unpacked(*found)
            labels.append(answer)
        self.ledger.drop(common)
        return Finished(c, float(json.loads(kept[0])), images, labels)

    def _names(self, c: Configuration, plan: Schedule) -> list[str]:
        units = [name for name, *_ in self._images(c, plan)] + [name for name, *_ in self._labels(c, plan)]
        return [self._name(c, "accuracy"), *units]

    def _images(self, c: Configuration, plan: Schedule) -> list[tuple[str, Attack, int]]:
        """Name, attack and seed of each unit."""
        return [
            (self._name(c, identity.of_threat(a), self._scored), a, self._seed(c, repr(a)))
            for a in plan.images[c.label]
        ]

    def _labels(self, c: Configuration, plan: Schedule) -> list[tuple[str, LabelAttack, Secret, int]]:
        """Name, attack, what it infers, and seed of each unit."""
        return [
            (self._name(c, f"{identity.of_threat(a)} {s.name} {s.classes}"), a, s, self._seed(c, repr(a), s.name))
            for a in plan.labels[c.label]
            for s in self.secrets
        ]

    def _name(self, c: Configuration, what: str, facts: Mapping[str, object] | None = None) -> str:
        facts = facts or {"accuracy": self._tested, "shared": self._known}.get(what, self._attacked)
        label = c.place.text(what.partition(" ")[0])
        return named(label, {"what": what, "at": self._states[c.label], "by": facts})

    def _seed(self, c: Configuration, *what: str) -> int:
        return derive(self.seed, c.place.text(*what))
