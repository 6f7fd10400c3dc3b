"""`Setting`: what every job of one audit takes; and the jobs, which begin in another process as well as in this one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from splitveil.lab.accelerator import Accelerator
from splitveil.lab.attacks.base import Attack, LabelAttack
from splitveil.lab.attacks.view import Aux, Knows
from splitveil.lab.auditing.configuration import Configuration
from splitveil.lab.auditing.examiners import Asked
from splitveil.lab.auditing.features import features_of_part, in_rows, parted
from splitveil.lab.auditing.scoring import Secret, attacked, inferred
from splitveil.lab.auditing.subject import Subject
from splitveil.lab.auditing.views import Wire
from splitveil.lab.data.base import Array
from splitveil.lab.jobs import Leaving
from splitveil.lab.store import Kept


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """What is audited, and everything that decides a unit beside configuration and attack.

    Attributes:
        subject: with its configurations.
        private: (N, C, H, W) uint8, the images that are attacked.
        aux: the adversary's images.
        knows: its grants.
        samples: private images whose guesses are kept.
        seed: of the audit.
        asked: further metrics and examiners.
        where: jobs compute.
    """

    subject: Subject
    private: Tensor
    aux: Aux
    knows: Knows
    samples: int
    seed: int
    asked: Asked
    where: Accelerator

    def configuration(self, label: str) -> Configuration:
        """By its label."""
        return next(c for c in self.subject.configurations if c.label == label)


@dataclass(frozen=True, slots=True, eq=False)
class Crossed:
    """Clean features at one cut: private (N, *cut), known (M, *cut) of the adversary's images."""

    private: Tensor
    known: Tensor


@dataclass(frozen=True, slots=True)
class Turn:
    """One attack's turn at one configuration.

    Attributes:
        label: of the configuration.
        attack: on images, or on a label.
        secret: the label, for the latter.
        seed: of the attack.
        common: folder of the checkpoints of what attacks share; None for nowhere.
        foreign: keys of what others make first, see `View.once`.
        leaves: keys of what this one makes for others.
    """

    label: str
    attack: Attack | LabelAttack
    secret: Secret | None
    seed: int
    common: Path | None
    foreign: frozenset[str]
    leaves: tuple[str, ...]


def taken(setting: Setting, crossed: Crossed, turn: Turn, *rest: Mapping[str, object] | Path | None) -> Kept | Leaving:
    """The unit of one turn.

    Args:
        setting: of the audit.
        crossed: at its cut.
        turn: whose.
        rest: what attacks before it left, each None where that is gone and has to be made anew; last its folder.
    """
    *before, folder = rest
    made = {key: value for left in before if isinstance(left, Mapping) for key, value in left.items()}
    own = folder if isinstance(folder, Path) else None
    common = turn.common if turn.common is not None and turn.common.is_dir() else None
    with setting.where.used():
        return _taken(_wire(setting, crossed, turn.label, common).holding(made, turn.foreign), setting, turn, own)


def _taken(wire: Wire, setting: Setting, turn: Turn, own: Path | None) -> Kept | Leaving:
    if isinstance(turn.attack, Attack):
        kept = attacked(
            turn.attack, wire, setting.private, torch.arange(setting.samples), seed=turn.seed, draws=setting.seed,
            workdir=own, asked=setting.asked,
        ).packed()  # fmt: skip
    elif turn.secret is not None:
        kept = inferred(
            turn.attack, turn.secret, wire, seed=turn.seed, draws=setting.seed, workdir=own
        ).packed()  # fmt: skip
    else:
        raise TypeError(f"{turn.attack!r} was given no label to infer")
    if not turn.leaves:
        return kept
    return Leaving(kept, {key: wire.shared.made[key] for key in turn.leaves if key in wire.shared.made})


def looked_through(
    setting: Setting, labels: Sequence[str], images: Array, true: Array | None, keep: Array, before: int, _: Path | None
) -> Leaving:
    """Right answers by configuration, as JSON; leaves the features. See `features_of_part`."""
    wanted = [setting.configuration(label) for label in labels]
    with setting.where.used():
        right, features = features_of_part(setting.subject, wanted, images, true, keep, before, setting.seed)
    return Leaving((json.dumps(right), {}), features)


def joined(name: str, private: int, places: Sequence[Array], *parts: Mapping[str, Tensor] | Path | None) -> Leaving:
    """Leaves what `looked_through` left of the cut `name`, in one piece, as `Crossed`.

    Args:
        name: of the cut.
        private: images, the first of those that are kept of the test part.
        places: of the images of each part of the test part among them.
        parts: first those, then the ones of the adversary's further images, each in order; last a folder, of no use.
    """
    own = [part[name] for part in parts if isinstance(part, Mapping)]
    test = own[0].new_empty(sum(map(len, places)), *own[0].shape[1:])
    for place, part in zip(places, own, strict=False):
        test[torch.from_numpy(place)] = part
    further = own[len(places) :]
    extra = in_rows(torch.cat(further)) if further else None
    return Leaving(("{}", {}), Crossed(*parted(in_rows(test), extra, private)))


def forget_wire() -> None:
    """Let go of the features that the last turn in this process looked at."""
    _wire.cache_clear()


@lru_cache(1)
def _wire(setting: Setting, crossed: Crossed, label: str, common: Path | None) -> Wire:
    """Made once for neighbouring turns at one configuration."""
    c = setting.configuration(label)
    return Wire(c, crossed.private, crossed.known, setting.aux, setting.knows, setting.seed, common, setting.private)
