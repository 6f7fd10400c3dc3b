"""Frozen sets of attacks. A number from a suite can be compared with any other number from the same version of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from splitveil.errors import UnknownNameError
from splitveil.registry import nearest

FLOORS = ("mean", "class_mean", "nearest")
"""Run first in every audit, whatever else does."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A named, versioned list of attack specs and the most auxiliary images that the adversary may hold."""

    name: str
    version: str
    attacks: tuple[str, ...]
    max_aux: int
    about: str

    @property
    def label(self) -> str:
        """As written in cards: ``smoke-0``."""
        return f"{self.name}-{self.version}" if self.version else self.name


SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "smoke", "0", ("decoder:size=small,epochs=6,steps=600", "mle:steps=150"), 10_000, "minutes; a first look"
        ),
        Suite("standard", "0", ("decoder:size=medium,epochs=20,steps=2000", "mle:steps=500"), 20_000, "what to report"),
        Suite("strong", "0", ("decoder:size=large,epochs=60,steps=6000", "mle:steps=2000"), 50_000, "what to publish"),
    )
}
"""Version 0 may still change; the first frozen one is 1."""


def find_suite(name: str) -> Suite:
    """The suite called `name`.

    Raises:
        UnknownNameError: no such suite.
    """
    if name not in SUITES:
        raise UnknownNameError(f"unknown suite {name!r}.{nearest(name, SUITES)} Known: {', '.join(SUITES)}.")
    return SUITES[name]


def custom_suite(attacks: Sequence[str]) -> Suite:
    """Attacks of the user's choice; the card says ``custom``."""
    return Suite("custom", "", tuple(attacks), 10_000, "attacks of the user's choice")
