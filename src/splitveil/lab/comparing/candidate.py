"""What is compared: a defence, or a codec alone, with the knob that may be turned."""

import inspect
from dataclasses import dataclass
from functools import partial

from splitveil.core.errors import InputError, UnknownNameError
from splitveil.core.registry import Spec, nearest
from splitveil.lab.comparing.knobs import KNOBS, NOT_DEFENSES, Knob
from splitveil.lab.comparing.setting import Setting
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Defense
from splitveil.lab.defenses.chain import Chain
from splitveil.wire.codecs import CODECS

PLAIN = "none"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One line of a comparison.

    Attributes:
        spec: as asked for; its options stay fixed.
        codec: what it is sent with.
        knob: None where there is nothing to turn: no knob is known for it, or its value was given.
    """

    spec: Spec
    codec: str
    knob: Knob | None

    @classmethod
    def parse(cls, text: str, codec: str) -> "Candidate":
        """``siftfunnel:nonlinear=4``, or ``uniform`` for quantisation alone.

        Raises:
            UnknownNameError: neither a defence nor a codec.
            InputError: an option that it does not have or that is out of range.
        """
        spec = Spec.parse(text)
        known = [*DEFENSES.names(), *CODECS.names()]
        if spec.name not in known:
            raise UnknownNameError(
                f"unknown defense {spec.name!r}.{nearest(spec.name, known)} Known: {', '.join(known)}."
            )
        knob = KNOBS.get(spec.name)
        registry = DEFENSES if spec.name in DEFENSES.names() else CODECS
        options = inspect.signature(registry.get(spec.name)).parameters
        if knob is not None and (knob.option in spec.options or knob.option not in options):
            knob = None
        found = cls(spec, codec, knob)
        found.check()
        return found

    @property
    def label(self) -> str:
        """As asked for."""
        return str(self.spec)

    @property
    def defends(self) -> bool:
        """Whether it may be called a defence."""
        return self.spec.name in DEFENSES.names() and _defends(DEFENSES.build(self.spec))

    def check(self) -> None:
        """Build it once, so that a wrong option stops a long run before it begins.

        Raises:
            InputError: an option that it does not have, that is out of range, or that no record may name.
        """
        ends = (0.0, 1.0) if self.knob else (0.0,)
        for setting in map(partial(self.at, channels=1), ends):
            DEFENSES.build(setting.defense)
            CODECS.build(setting.codec)
        told = Spec.parse(setting.defense if self.spec.name in DEFENSES.names() else setting.codec)
        if secret := [option for option in self.spec.options if option not in told.options]:
            raise InputError(
                f"expected options that a record may name, got {secret[0]} of {self.spec.name}; leave it out: every "
                "seed draws its own."
            )

    def at(self, strength: float, channels: int) -> Setting:
        """With its knob turned. strength: 0 weakest to 1 strongest; channels: of the cut, before the defence."""
        more = {self.knob.option: self.knob.at(strength, channels)} if self.knob else {}
        spec = str(Spec(self.spec.name, {**self.spec.options, **more}))
        if self.spec.name in DEFENSES.names():
            return Setting(repr(DEFENSES.build(spec)), self.codec)
        return Setting(PLAIN, repr(CODECS.build(spec)))


def _defends(defense: Defense) -> bool:
    if isinstance(defense, Chain):
        return any(_defends(part) for part in defense.parts if isinstance(part, Defense))
    return defense.name not in NOT_DEFENSES


def parse_all(texts: list[str], codec: str) -> list[Candidate]:
    """Candidates in order.

    Raises:
        InputError: one of them twice, or the undefended split, which every comparison has.
    """
    found = [Candidate.parse(text, codec) for text in texts]
    labels = [c.label for c in found]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise InputError(f"expected each defense once, got {twice[0]} twice; leave one out or give it other options.")
    if PLAIN in labels:
        raise InputError("expected defenses, got none, which every comparison begins with; leave it out.")
    return found
