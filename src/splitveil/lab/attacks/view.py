"""The adversary: what it knows (`Knows`) and all that it holds (`View`)."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Flag, auto
from pathlib import Path
from typing import TypeVar

import torch
from filelock import FileLock
from torch import Tensor, nn

from splitveil.core.errors import InputError, ThreatModelError
from splitveil.lab.images import as_floats
from splitveil.lab.law import Law
from splitveil.lab.seeds import derive, named
from splitveil.lab.store import code_of
from splitveil.lab.training import Tally
from splitveil.wire.codecs import Codec

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
    """The adversary's own images.

    Attributes:
        x: (M, C, H, W) uint8.
        y: (M,) int64, labels of the task; -1 where unknown.
        attributes: name -> (M,) int64, other labels that the adversary has for its images; -1 where unknown.
    """

    x: Tensor
    y: Tensor
    attributes: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> "Aux":
        """The same on a device, where its images stay as bytes; positions are the processor's everywhere."""
        return Aux(self.x.to(device), self.y.to(device), {k: v.to(device) for k, v in self.attributes.items()})

    @property
    def held_out(self) -> Tensor:
        """Positions of the images set aside to choose by: the last tenth, 512 at most, one at least."""
        return torch.arange(len(self) - max(1, min(len(self) // 10, 512)), len(self))

    def images(self, index: Tensor | slice = slice(None)) -> Tensor:
        """(m, C, H, W) float in [0, 1]."""
        return as_floats(self.x[index])


class Shared:
    """What the attacks of one adversary on one configuration need not make twice, such as a trained decoder.

    Args:
        seed: of everything that is made; not the seed of whichever attack asks first, so that order changes nothing.
        workdir: where checkpoints lie; None for nowhere.
    """

    def __init__(self, seed: int = 0, workdir: Path | None = None) -> None:
        self.seed, self.workdir = seed, workdir
        self.made: dict[str, object] = {}


class View:
    """All that one adversary has. An ungranted read raises `ThreatModelError`; the private images are not in it.

    Args:
        z: (N, *cut), the features of the private images as they crossed the wire, decoded by the public codec.
        image_shape: (C, H, W) of the images to recover.
        knows: what is granted.
        aux: the adversary's images; needed for `Knows.AUX`.
        observe: index into aux -> observed features, fresh noise each call; needed for `Knows.QUERIES` with aux.
        query: images (n, C, H, W) in [0, 1] -> observed features, fresh noise each call; for `Knows.QUERIES`.
        edge: the undefended edge half; read with `Knows.WEIGHTS`, and `blank_edge` with `Knows.CLOUD`.
        defense: the defence module; for `Knows.DEFENSE`.
        cloud: the cloud half; for `Knows.CLOUD`.
        again: (k - 1, N, *cut), further crossings of the same inputs, where they were sent k times.
        stochastic: whether the same image gives other features each time.
        edge_draws: whether it does so by the edge half itself, before the defence.
        seed: of everything that an attack draws.
        workdir: where an attack may keep checkpoints; None for nowhere.
        label: for progress messages.
        shared: see `once`; None for a store of its own.
        architecture: that `blank_edge` has, as a module; the edge where None.
        codec: that features went through; it is public. None where nobody said.

    Attributes:
        evidence: what an attack tells of itself for the self-checks, by `record`.
        reads: counts them for `observed`.
        foreign: what `once` makes for another attack in the first place, under these keys: its reads are that one's.
        law: what searches through the edge go by instead of the defence's mean and spread, where an attack worked out
            more than those (`law`). It speaks of what this view's edge and defence make, and ends where that changes.
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
        again: Tensor | None = None,
        stochastic: bool = False,
        edge_draws: bool = False,
        seed: int = 0,
        workdir: Path | None = None,
        label: str = "",
        shared: Shared | None = None,
        architecture: nn.Module | None = None,
        codec: Codec | None = None,
    ) -> None:
        self.edge_draws, self.codec = edge_draws, codec
        self.law: Law | None = None
        self.z, self.image_shape, self.knows = z, image_shape, knows
        self.stochastic, self.seed, self.workdir, self.label = stochastic, seed, workdir, label
        self.crossings = z[None] if again is None else torch.cat([z[None], again])
        self.evidence: dict[str, float] = {}
        self.reads = Tally()
        self.foreign: frozenset[str] = frozenset()
        self._outer = True
        self.shared = shared or Shared(seed, workdir)
        self._aux = aux if Knows.AUX in knows else None
        self._observe = observe if Knows.AUX | Knows.QUERIES in knows else None
        self._query = query if Knows.QUERIES in knows else None
        self._edge = edge if Knows.WEIGHTS in knows else None
        self._architecture = (architecture or edge) if knows & (Knows.WEIGHTS | Knows.CLOUD) else None
        self._defense = defense if Knows.DEFENSE in knows else None
        self._cloud = cloud if Knows.CLOUD in knows else None

    @property
    def aux(self) -> Aux:
        """The adversary's own images."""
        return self._granted(self._aux, "AUX")

    @property
    def observed(self) -> int:
        """Features of aux images read so far, with repetition; what an attack reads through `within` counts here."""
        return self.reads.count

    def observe(self, index: Tensor) -> Tensor:
        """Observed features of the aux images at `index`: (n,) -> (n, *cut), fresh noise each call."""
        self.reads.count += len(index) * self._outer
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

    def blank_edge(self) -> nn.Module:
        """A trainable edge of the same architecture with fresh random weights, drawn from torch's global generator.

        Architectures are taken to be public: whoever holds the cloud half may have this, but not the weights.
        """
        return redrawn(self._granted(self._architecture, "CLOUD"))

    def once(self, key: str, make: Callable[[int, Path | None], T]) -> T:
        """What `make(seed, workdir)` gives, made once for all attacks on this configuration that ask for `key`.

        `make` may use nothing but what every adversary who asks is granted, and `key` must name all that decides it.
        """
        if key not in self.shared.made:
            # Checkpoints of other code are none of this one's.
            folder = self.shared.workdir / named(key, code_of(make)) if self.shared.workdir else None
            before = self.reads.count
            with _alone(folder):
                self.shared.made[key] = make(derive(self.shared.seed, key), folder)
            if key in self.foreign:
                self.reads.count = before
        found: T = self.shared.made[key]  # type: ignore[assignment]
        return found

    def record(self, **evidence: float) -> None:
        """Tell the self-checks something about the run; `splitveil.lab.auditing.checks` says what is read."""
        self.evidence |= evidence

    def within(
        self,
        name: str,
        knows: Knows,
        *,
        z: Tensor | None = None,
        observe: Callable[[Tensor], Tensor] | None = None,
        query: Callable[[Tensor], Tensor] | None = None,
        edge: nn.Module | None = None,
        defense: nn.Module | None = None,
        cloud: nn.Module | None = None,
        stochastic: bool | None = None,
        shared: Shared | None = None,
    ) -> "View":
        """The view of an attack that another one runs, with what that one made in place of what it was given.

        What is not replaced is this view's own, and granted only where both `knows` and this view say so. Evidence is
        shared; checkpoints lie in a folder of their own. What is made once stays among those who see the same: this
        view's store where nothing is replaced that decides it, else `shared`, else one of its own.
        """
        own = self.knows
        made = View(
            self.z if z is None else z,
            self.image_shape,
            knows=knows,
            aux=self._aux,
            observe=observe or (self.observe if Knows.AUX | Knows.QUERIES in own else None),
            query=query or (self.query if Knows.QUERIES in own else None),
            edge=edge or (self._edge if Knows.WEIGHTS in own else None),
            defense=defense or (self._defense if Knows.DEFENSE in own else None),
            cloud=cloud or self._cloud,
            stochastic=self.stochastic if stochastic is None else stochastic,
            edge_draws=self.edge_draws and edge is None,
            seed=self.seed,
            workdir=self.workdir / name if self.workdir else None,
            label=f"{name} {self.label}".strip(),
            shared=self.shared if observe is None and edge is None and defense is None else shared,
            architecture=self._architecture,
        )
        made.evidence, made.reads, made.foreign, made._outer = self.evidence, self.reads, self.foreign, False
        if observe is None and edge is None and defense is None:
            made.codec, made.law = self.codec, self.law
        return made

    def check(self, needs: Knows, name: str) -> None:
        """Refuse an attack that needs more than is granted.

        Raises:
            ThreatModelError: naming what is missing.
        """
        missing = needs & ~self.knows
        if missing:
            raise ThreatModelError(
                f"attack {name!r} needs {', '.join(needs.words())}; not granted: {', '.join(missing.words())}; "
                "grant it or choose another attack."
            )

    def _granted(self, value: T | None, grant: str) -> T:
        if value is None:
            held = ", ".join(self.knows.words()) or "nothing"
            raise ThreatModelError(
                f"this adversary was granted {held}, not {grant}; grant it or choose another attack."
            )
        return value


@contextmanager
def _alone(folder: Path | None) -> Iterator[None]:
    """Let nobody else make what lies in `folder` meanwhile; who had to wait finds it there."""
    if folder is None:
        yield
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        yield


def redrawn(module: nn.Module) -> nn.Module:
    """A trainable copy with fresh weights: each module's own initialisation, else a normal of the same spread."""
    copied = copy.deepcopy(module)
    fresh: set[int] = set()
    for part in copied.modules():
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
            fresh |= {id(p) for p in part.parameters(recurse=False)}
    for parameter in copied.parameters():
        if id(parameter) not in fresh:
            with torch.no_grad():
                parameter.normal_(float(parameter.mean()), float(parameter.std(correction=0)))
        parameter.requires_grad_(True)
    return copied
