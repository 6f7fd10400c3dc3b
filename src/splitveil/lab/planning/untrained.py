"""A defence at a cut before anybody trains it: what it costs there, and its proxies."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from splitveil.core.errors import InputError
from splitveil.lab.comparing.costs import edge_cost
from splitveil.lab.comparing.facts import Defended, Sent, Start, Taught
from splitveil.lab.cut import Split
from splitveil.lab.data import Dataset, Images
from splitveil.lab.defenses.base import Protected
from splitveil.lab.planning.proxies import proxy
from splitveil.lab.protection import protect
from splitveil.lab.store import Facts, Kept

Counts = dict[str, int]
"""``edge_macs``, ``edge_bytes``, ``edge_memory``; ``elements`` that cross and ``cloud_macs``."""


@dataclass(frozen=True)
class Counted(Facts):
    """What a defence costs at a cut, whatever the codec, or why it cannot be had there."""

    made_by: ClassVar = ("splitveil.lab.planning.untrained",)
    start: Start
    defense: Defended
    data: Taught
    seed: int

    @property
    def label(self) -> str:
        return f"costs {self.start.cut} {self.defense.words}"


@dataclass(frozen=True)
class Proxied(Facts):
    """The cheap numbers of a defence at a cut, for some codecs."""

    made_by: ClassVar = ("splitveil.lab.planning.untrained", "splitveil.lab.metrics.reconstruction")
    start: Start
    defense: Defended
    codecs: tuple[Sent, ...]
    data: Taught
    seed: int

    @property
    def label(self) -> str:
        return f"proxy {self.start.cut} {self.defense.words}"


def installed(start: Split, defense: str, studied: Dataset, seed: int) -> Protected:
    """The split with its defence, not trained. start: halves, left as they are.

    Raises:
        InputError: this defence cannot be had there.
    """
    return protect(copy.deepcopy(start), defense, "raw", studied, epochs=0, seed=seed)[0]


def counts(protected: Protected, image: tuple[int, ...]) -> Counts:
    """Of one sample. image: (C, H, W)."""
    cut, noise = protected.split.cut, 0
    if protected.defense.stochastic:
        noise = 4 * int(np.prod(protected.defense.noise_shape(cut.shape)))
    tensors = [*protected.split.edge.state_dict().values(), *protected.defense.state_dict().values()]
    stored = {t.untyped_storage().data_ptr(): t.numel() * t.element_size() for t in tensors if t.numel()}
    return {
        "edge_macs": edge_cost(protected, image).macs,
        "edge_bytes": sum(stored.values()),
        "edge_memory": max(cut.edge_peak_bytes, 2 * cut.bytes_fp32 + noise),
        "elements": int(np.prod(cut.shape)),
        "cloud_macs": cut.cloud_macs,
    }


def counted(start: Split, defense: str, studied: Dataset, seed: int, _: Path | None) -> Kept:
    """``counts``, or ``refused`` with the reason, as JSON."""
    try:
        return json.dumps({"counts": counts(installed(start, defense, studied, seed), studied.shape)}), {}
    except InputError as why:
        return json.dumps({"refused": str(why)}), {}


def proxied(
    start: Split, defense: str, studied: Dataset, codecs: list[str], images: Images, seed: int, _: Path | None
) -> Kept:
    """Codec -> cheap numbers, as JSON; see `splitveil.lab.planning.proxies`."""
    return json.dumps(proxy(installed(start, defense, studied, seed), codecs, images, seed)), {}
