"""What a planner may choose from: cuts, defences at several strengths, and codecs."""

from collections.abc import Sequence
from dataclasses import dataclass

from splitveil.core.errors import InputError
from splitveil.core.records import Cut, Place
from splitveil.lab.comparing.candidate import PLAIN, Candidate
from splitveil.lab.comparing.setting import Setting
from splitveil.wire.codecs import CODECS

DEFENSES = (PLAIN, "veil", "noise", "bottleneck", "siftfunnel", "privynet:choice=useful")
"""Families by default. PrivyNet with a choice that can be repeated: a plan must be one that can be run again."""
CODECS_TRIED = ("raw", "uniform:bits=8", "uniform:bits=4")
LEVELS = (0.25, 0.5, 0.75, 0.9)
"""Strengths at which a knob is tried, of 0 to 1 (`splitveil.lab.comparing.knobs`)."""


@dataclass(frozen=True, slots=True, order=True)
class Option:
    """One way to split.

    Attributes:
        depth: place of the cut among those looked at, 0 the shallowest.
        cut: its name.
        defense: spec, its knob turned.
        codec: spec.
        family: the defence as it was asked for.
        strength: where its knob stands; 0 where it has none.
    """

    depth: int
    cut: str
    defense: str
    codec: str
    family: str
    strength: float

    @property
    def place(self) -> Place:
        """Where its rows belong."""
        return Place(self.cut, self.defense, self.codec)

    @property
    def label(self) -> str:
        """``layer1 | noise:sigma=0.5 | raw``."""
        return self.place.label

    @property
    def setting(self) -> Setting:
        """Defence and codec."""
        return Setting(self.defense, self.codec)

    @property
    def group(self) -> tuple[str, str, str]:
        """Options that differ in nothing but their strength."""
        return self.cut, self.family, self.codec


@dataclass(frozen=True, slots=True)
class Space:
    """Cuts, families and codecs, of which `grid` lists the options and `at` makes any other.

    Attributes:
        cuts: shallowest first.
        families: parsed, with their knobs.
        codecs: specs as their objects print themselves.
    """

    cuts: tuple[Cut, ...]
    families: tuple[Candidate, ...]
    codecs: tuple[str, ...]

    @classmethod
    def of(cls, cuts: Sequence[Cut], defenses: Sequence[str], codecs: Sequence[str]) -> "Space":
        """Read the specs.

        Raises:
            UnknownNameError: no such defence or codec.
            InputError: nothing to choose from, one of them twice, or an option out of range.
        """
        for what, given in (("cut", cuts), ("defense", defenses), ("codec", codecs)):
            if not given:
                raise InputError(f"expected at least one {what}, got none; leave --{what} out for the default.")
        found = tuple(repr(CODECS.build(text)) for text in codecs)
        families = tuple(Candidate.parse(text, found[0]) for text in defenses)
        names = [c.name for c in cuts], [f.label for f in families], list(found)
        if twice := [name for group in names for name in group if group.count(name) > 1]:
            raise InputError(f"expected each cut, defense and codec once, got {twice[0]} twice; leave one out.")
        if codecs_as_defense := [f.label for f in families if f.spec.name in CODECS.names()]:
            raise InputError(f"expected defenses, got the codec {codecs_as_defense[0]}; give it to --codec.")
        return cls(tuple(sorted(cuts, key=lambda c: c.index)), families, found)

    def at(self, cut: str, family: str, codec: str, strength: float) -> Option:
        """One option. strength: 0 weakest to 1 strongest."""
        depth = next(i for i, c in enumerate(self.cuts) if c.name == cut)
        candidate = next(f for f in self.families if f.label == family)
        strength = round(strength, 3) if candidate.knob else 0.0
        setting = candidate.at(strength, self.cuts[depth].shape[0])
        return Option(depth, cut, setting.defense, codec, family, strength)

    def grid(self, levels: Sequence[float] = LEVELS) -> list[Option]:
        """Every cut with every family at every level and every codec; settings that turn out the same are one."""
        found = dict[str, Option]()
        for cut in self.cuts:
            for family in self.families:
                for strength in levels if family.knob else (0.0,):
                    for codec in self.codecs:
                        option = self.at(cut.name, family.label, codec, strength)
                        found.setdefault(option.label, option)
        return list(found.values())

    def plain(self, cut: str) -> Option:
        """The undefended, unquantised split there: what others are compared with, listed or not."""
        depth = next(i for i, c in enumerate(self.cuts) if c.name == cut)
        return Option(depth, cut, PLAIN, "raw", PLAIN, 0.0)
