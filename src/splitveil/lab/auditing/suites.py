"""Frozen sets of attacks. A number from a suite can be compared with any other number from the same version of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from splitveil.core.errors import UnknownNameError
from splitveil.core.records import FLOORS
from splitveil.core.registry import nearest
from splitveil.lab.attacks.view import Knows


@dataclass(frozen=True, slots=True)
class Suite:
    """A named, versioned list of attack specs and the most auxiliary images that the adversary may hold.

    Attributes:
        name: as on the command line.
        version: empty where it is not frozen.
        attacks: run everywhere.
        max_aux: most auxiliary images.
        about: one line.
        fallback: run only where the adversary can neither query the edge nor has its weights.
        stochastic: run only on configurations whose defence draws noise.
        lawful: run only on configurations whose defence tells more than a mean and its noise (`Defense.lawful`).
    """

    name: str
    version: str
    attacks: tuple[str, ...]
    max_aux: int
    about: str
    fallback: tuple[str, ...] = ()
    stochastic: tuple[str, ...] = ()
    lawful: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """As written in cards: ``smoke-1``."""
        return f"{self.name}-{self.version}" if self.version else self.name

    def specs(self, knows: Knows, *, stochastic: bool, lawful: bool = False) -> list[str]:
        """Attacks for one configuration, floors first, each once."""
        fallback = () if knows & (Knows.QUERIES | Knows.WEIGHTS) else self.fallback
        noisy, told = self.stochastic if stochastic else (), self.lawful if lawful else ()
        return list(dict.fromkeys([*FLOORS, *self.attacks, *fallback, *noisy, *told]))


_QUICK = "decoder:size=small,epochs=6,steps=600"
_FULL = "decoder:size=auto,epochs=6,steps=800"
_LONG = "decoder:size=large,epochs=60,steps=8000"

SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "smoke",
            "1",
            ("linear", _QUICK, f"mle:steps=150,start=[{_QUICK}]"),
            10_000,
            "minutes; a first look",
            fallback=("shadow:learn=cloud,arch=same,steps=400",),
            stochastic=("repeat:attack=linear,k=16",),
        ),
        Suite(
            "standard",
            "1",
            (
                "linear",
                _FULL,
                f"mle:steps=250,start=[{_FULL}]",
                f"glass:decoder=[{_FULL}],steps=400,epochs=2,starts=2,rough=20,fine=40,free=40",
                f"flow:decoder=[{_FULL}],epochs=6,steps=800,draws=2",
                "positions:size=small,epochs=2,steps=300",
                "attribute",
                "completion",
            ),
            10_000,
            "what to report",
            fallback=("shadow:learn=cloud,arch=same,steps=800", "shadow:learn=cloud,arch=other,steps=800"),
            stochastic=(f"repeat:attack=[{_QUICK}],k=16", f"repeat:attack=[mle:steps=300,start=[{_QUICK}]],k=16"),
        ),
        Suite(
            "strong",
            "1",
            (
                "linear",
                _LONG,
                "decoder:size=large,epochs=60,steps=8000,kind=attention",
                "decoder:size=large,epochs=60,steps=8000,kind=large_kernel,frequency=True",
                "decoder:size=medium,epochs=40,steps=4000,loss=perceptual",
                f"mle:steps=2000,start=[{_LONG}],restarts=2",
                f"mle:steps=300,start=[{_LONG}],optimizer=lbfgs",
                "deep_prior:steps=600",
                f"glass:decoder=[{_LONG}],steps=4000,epochs=20,starts=8,rough=60,fine=200,free=200",
                f"flow:decoder=[{_LONG}],steps=6000,epochs=30,width=64,draws=8",
                "shadow:learn=queries,arch=other,steps=2000",
                "positions:size=medium,epochs=12,steps=2000",
                "attribute:epochs=30",
                "completion",
            ),
            50_000,
            "what to publish",
            fallback=("shadow:learn=cloud,arch=same,steps=4000", "shadow:learn=cloud,arch=other,steps=4000"),
            stochastic=(f"repeat:attack=[{_LONG}],k=64", f"repeat:attack=[mle:steps=600,start=[{_LONG}]],k=64"),
        ),
    )
}
"""Frozen: a change of any hyperparameter is a new version, and `tests/lab/auditing/test_suites.py` notices."""


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
