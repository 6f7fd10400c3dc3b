"""The plan of an audit: which attack runs at which cut, and which ones are left out and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from splitveil.core.errors import ThreatModelError
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack, LabelAttack
from splitveil.lab.attacks.view import Knows
from splitveil.lab.auditing.subject import Subject
from splitveil.lab.auditing.suites import Suite


@dataclass(frozen=True, slots=True)
class Schedule:
    """Attacks by label of the configuration, floors first, and notes on those that the adversary cannot run.

    Those from outside are held `against` the suite's and none of it.
    """

    images: Mapping[str, tuple[Attack, ...]]
    labels: Mapping[str, tuple[LabelAttack, ...]]
    notes: tuple[str, ...]
    against: tuple[Attack, ...] = ()

    @classmethod
    def of(cls, subject: Subject, suite: Suite, knows: Knows, against: Sequence[Attack] = ()) -> "Schedule":
        """What `suite` asks for at each configuration, as far as `knows` allows, and all of `against`.

        Raises:
            UnknownNameError: no such attack.
            InputError: an option that an attack does not have.
            ThreatModelError: no attack on images is within what the adversary knows, or one from outside is not.
        """
        images: dict[str, tuple[Attack, ...]] = {}
        labels: dict[str, tuple[LabelAttack, ...]] = {}
        notes: dict[str, None] = {}
        for c in subject.configurations:
            specs = suite.specs(knows, stochastic=c.stochastic, lawful=c.protected.defense.lawful)
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
        for attack in against:
            if attack.needs not in knows:
                needs = ", ".join((attack.needs & ~knows).words())
                raise ThreatModelError(f"attack {attack.name!r} needs {needs} as well; grant it with --knows.")
        return cls(images, labels, tuple(notes), tuple(against))
