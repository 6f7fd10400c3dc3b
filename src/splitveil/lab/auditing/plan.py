"""The plan of an audit: which attack runs at which cut, and which ones are left out and why."""

from collections.abc import Mapping
from dataclasses import dataclass

from splitveil.core.errors import ThreatModelError
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack, LabelAttack
from splitveil.lab.attacks.view import Knows
from splitveil.lab.auditing.subject import Subject
from splitveil.lab.auditing.suites import Suite


@dataclass(frozen=True, slots=True)
class Schedule:
    """Attacks by label of the configuration, floors first, and notes on those that the adversary cannot run."""

    images: Mapping[str, tuple[Attack, ...]]
    labels: Mapping[str, tuple[LabelAttack, ...]]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, subject: Subject, suite: Suite, knows: Knows) -> "Schedule":
        """What `suite` asks for at each configuration, as far as `knows` allows.

        Raises:
            UnknownNameError: no such attack.
            InputError: an option that an attack does not have.
            ThreatModelError: no attack on images is within what the adversary knows.
        """
        images: dict[str, tuple[Attack, ...]] = {}
        labels: dict[str, tuple[LabelAttack, ...]] = {}
        notes: dict[str, None] = {}
        for c in subject.configurations:
            specs = suite.specs(knows, stochastic=c.stochastic)
            asked = {repr(t): t for t in map(ATTACKS.build, specs)}
            for name, threat in asked.items():
                if threat.needs not in knows:
                    needs = ", ".join((threat.needs & ~knows).words())
                    notes[f"{name} was not run: it needs {needs} as well"] = None
            granted = [t for t in asked.values() if t.needs in knows]
            images[c.label] = tuple(t for t in granted if isinstance(t, Attack))
            labels[c.label] = tuple(t for t in granted if isinstance(t, LabelAttack))
        if not all(images.values()):
            raise ThreatModelError(
                f"no attack can be run by an adversary who knows {knows.words()}; grant more with --knows."
            )
        return cls(images, labels, tuple(notes))
