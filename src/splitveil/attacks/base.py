"""The adversary: what it knows (`Knows`), all that it holds (`View`), and what every attack does (`Attack`)."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto
from pathlib import Path
from typing import ClassVar, TypeVar, final

import torch
from torch import Tensor, nn

from splitveil.errors import InputError, SplitVeilError, ThreatModelError
from splitveil.registry import Spec, Value
from splitveil.seeds import derive

T = TypeVar("T")


class Knows(Flag):
    """Grants of an adversary; combine with ``|``."""

    NOTHING = 0
    AUX = auto()
    """Images of its own, with labels."""
    QUERIES = auto()
    """May send images of its own through the protected edge and read the features."""
    WEIGHTS = auto()
    """The edge half: architecture and weights."""
    DEFENSE = auto()
    """The defence and its parameters (not its random draws)."""
    CLOUD = auto()
    """The cloud half, as whoever runs the server has."""

    @classmethod
    def parse(cls, text: str) -> "Knows":
        """Read a comma-separated list such as ``aux,queries`` or one of `PRESETS`.

        Raises:
            InputError: an unknown grant.
        """
        found = cls.NOTHING
        for word in filter(None, (w.strip().lower() for w in text.split(","))):
            if word in PRESETS:
                found |= PRESETS[word]
            elif word.upper() in cls.__members__:
                found |= cls[word.upper()]
            else:
                known = ", ".join([*PRESETS, *(k.name.lower() for k in cls if k.name)])
                raise InputError(f"unknown grant {word!r} in --knows; choose from {known}.")
        return found

    def words(self) -> list[str]:
        """Names of the grants, in order of declaration."""
        return [k.name for k in type(self) if k in self and k.name]


PRESETS = {
    "white-box": Knows.AUX | Knows.QUERIES | Knows.WEIGHTS | Knows.DEFENSE | Knows.CLOUD,
    "black-box": Knows.AUX | Knows.QUERIES | Knows.CLOUD,
    "query-free": Knows.AUX | Knows.CLOUD,
}
"""Adversaries by name. All hold auxiliary images and run the cloud; they differ in what they know of the edge."""


@dataclass(frozen=True, slots=True)
class Aux:
    """The adversary's own images. x: (M, C, H, W) uint8, y: (M,) int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def images(self, index: Tensor | slice = slice(None)) -> Tensor:
        """(m, C, H, W) float in [0, 1]."""
        return self.x[index].float() / 255


class View:
    """All that one adversary has. An ungranted read raises `ThreatModelError`; the private images are not in it.

    Args:
        z: (N, *cut), the features of the private images as they crossed the wire, decoded by the public codec.
        image_shape: (C, H, W) of the images to recover.
        knows: what is granted.
        aux: the adversary's images; needed for `Knows.AUX`.
        observe: index into aux -> observed features, fresh noise each call; needed for `Knows.QUERIES` with aux.
        query: images (n, C, H, W) in [0, 1] -> observed features, fresh noise each call; for `Knows.QUERIES`.
        edge: the undefended edge half; for `Knows.WEIGHTS`.
        defense: the defence module; for `Knows.DEFENSE`.
        cloud: the cloud half; for `Knows.CLOUD`.
        stochastic: whether the same image gives other features each time.
        seed: of everything that an attack draws.
        workdir: where an attack may keep checkpoints; None for nowhere.
        label: for progress messages.
    """

    def __init__(
        self,
        z: Tensor,
        image_shape: tuple[int, int, int],
        *,
        knows: Knows,
        aux: Aux | None = None,
        observe: Callable[[Tensor], Tensor] | None = None,
        query: Callable[[Tensor], Tensor] | None = None,
        edge: nn.Module | None = None,
        defense: nn.Module | None = None,
        cloud: nn.Module | None = None,
        stochastic: bool = False,
        seed: int = 0,
        workdir: Path | None = None,
        label: str = "",
    ) -> None:
        self.z, self.image_shape, self.knows = z, image_shape, knows
        self.stochastic, self.seed, self.workdir, self.label = stochastic, seed, workdir, label
        self._aux = aux if Knows.AUX in knows else None
        self._observe = observe if Knows.AUX | Knows.QUERIES in knows else None
        self._query = query if Knows.QUERIES in knows else None
        self._edge = edge if Knows.WEIGHTS in knows else None
        self._defense = defense if Knows.DEFENSE in knows else None
        self._cloud = cloud if Knows.CLOUD in knows else None

    @property
    def aux(self) -> Aux:
        """The adversary's own images."""
        return self._granted(self._aux, "AUX")

    def observe(self, index: Tensor) -> Tensor:
        """Observed features of the aux images at `index`: (n,) -> (n, *cut), fresh noise each call."""
        return self._granted(self._observe, "AUX and QUERIES")(index)

    def query(self, x: Tensor) -> Tensor:
        """Observed features of images of the adversary's choice. x: (n, C, H, W) in [0, 1] -> (n, *cut)."""
        return self._granted(self._query, "QUERIES")(x)

    @property
    def edge(self) -> nn.Module:
        """The edge half before the defence, frozen; differentiable in its input."""
        return self._granted(self._edge, "WEIGHTS")

    @property
    def defense(self) -> nn.Module:
        """The defence: z -> z, fresh noise each call."""
        return self._granted(self._defense, "DEFENSE")

    @property
    def cloud(self) -> nn.Module:
        """The cloud half: observed features -> logits."""
        return self._granted(self._cloud, "CLOUD")

    def _granted(self, value: T | None, grant: str) -> T:
        if value is None:
            held = ", ".join(self.knows.words()) or "nothing"
            raise ThreatModelError(
                f"this adversary was granted {held}, not {grant}; grant it or choose another attack."
            )
        return value


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What an attack returned. x_hat: (N, C, H, W) in [0, 1] on the CPU."""

    x_hat: Tensor
    seconds: float
    clipped: float
    """Share of values that lay outside [0, 1]."""


class Attack(ABC):
    """One way to turn observed features back into images. Subclasses say what they need and override `run` only."""

    name: ClassVar[str]
    needs: ClassVar[Knows]

    @abstractmethod
    def run(self, view: View) -> Tensor:
        """The guess x_hat: (N, C, H, W)."""

    @final
    def __call__(self, view: View) -> Reconstruction:
        """Check grants, run, check the shape, clip to [0, 1], time. An attack cannot score itself.

        Raises:
            ThreatModelError: the adversary was not granted what this attack needs.
        """
        missing = self.needs & ~view.knows
        if missing:
            raise ThreatModelError(
                f"attack {self.name!r} needs {', '.join(self.needs.words())}; "
                f"not granted: {', '.join(missing.words())}."
            )
        start = time.perf_counter()
        x_hat = self.run(view).detach().float().cpu()
        seconds = time.perf_counter() - start
        expected = (len(view.z), *view.image_shape)
        if x_hat.shape != expected:
            raise SplitVeilError(f"attack {self.name!r}: expected images {expected}, got {tuple(x_hat.shape)}.")
        outside = ((x_hat < 0) | (x_hat > 1)).float().mean().item()
        return Reconstruction(x_hat.clamp(0, 1), seconds, outside)

    def options(self) -> dict[str, Value]:
        """Hyperparameters as the registry reads them."""
        return {}

    @final
    def __repr__(self) -> str:
        return str(Spec(self.name, self.options()))


def frozen(module: nn.Module) -> nn.Module:
    """`module` in eval mode without parameter gradients, in place."""
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def seed_view(view: View, *parts: object) -> None:
    """Seed torch for one attack on one view, so that the result does not depend on what ran before."""
    torch.manual_seed(derive(view.seed, *parts))
