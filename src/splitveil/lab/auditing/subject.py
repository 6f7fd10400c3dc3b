"""What is audited: a traced model at some cuts, or one protected split beside its halves alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from splitveil.core.arguments import checked
from splitveil.core.errors import InputError
from splitveil.core.records import StandIn
from splitveil.lab.attacks.base import frozen
from splitveil.lab.auditing.configuration import Configuration
from splitveil.lab.cut import Cut, Split, Traced
from splitveil.lab.defenses.base import Defense, Protected
from splitveil.lab.defenses.none import Undefended
from splitveil.lab.probing import draws
from splitveil.lab.restoring import Shipped
from splitveil.lab.seeds import seeded
from splitveil.wire.codecs import CODECS

FRESH = "its own draws count as a defence's: afresh for every crossing, and averaged by the adversary"
ALIKE = 1e-5
"""Difference of two runs, relative to the largest feature, that is rounding."""
OTHERS = (1, 2)
"""Seeds of the further runs."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Everything to audit in one go, and how the card names it.

    Attributes:
        model: name for the card.
        weights: description for the card.
        tap: image -> (logits, features at each distinct cut), one forward pass.
        cuts: the distinct cuts, in the order of the tap.
        configurations: at each cut the one without defence, if there is one, before the defended one.
        bundle: folder name where it came from a bundle.
        notes: for the card.
        stand_in: what searches descend on, where what ships has no gradient.
    """

    model: str
    weights: str
    tap: nn.Module
    cuts: tuple[Cut, ...]
    configurations: tuple[Configuration, ...]
    bundle: str = ""
    notes: tuple[str, ...] = ()
    stand_in: StandIn | None = None
    random: bool = False
    """A half is random by itself."""

    @classmethod
    @checked
    def of_model(cls, traced: Traced, at: Sequence[str], *, model: str, weights: str) -> "Subject":
        """A trained model, undefended, at each cut named in `at`, shallowest first."""
        splits = sorted((traced.split(name) for name in at), key=lambda s: s.cut.index)
        unique = {s.cut.name: s for s in splits}
        cuts = tuple(s.cut for s in unique.values())
        random = bool(traced.random)
        configurations = tuple(
            Configuration(s.cut, undefended(s), random and _draws(s.edge, s.image)) for s in unique.values()
        )
        notes = (f"the model is {traced.random}: {FRESH}",) if random else ()
        return cls(model, weights, frozen(traced.tap(list(unique))), cuts, configurations, notes=notes, random=random)

    @classmethod
    @checked
    def of_split(cls, protected: Protected, *, model: str, weights: str, bundle: str = "") -> "Subject":
        """A protected split, and before it the same halves with nothing between them, unless nothing is there anyway.

        Those halves are no undefended split: the defence may have rebuilt and trained them.
        """
        cut, whole = protected.split.cut, Halfway(protected.split, protected.defense.rest())
        random = _draws(protected.split.eval().edge, protected.split.image)
        bare = Configuration(cut, undefended(protected.split, protected.defense), random)
        own = Configuration(cut, protected.eval(), random)
        frozen(protected)
        both = (own,) if own.codec == "raw" and not protected.defense.acts else (bare, own)
        notes = _notes(protected, alone=len(both) == 1)
        if random:
            notes = (*notes, f"the edge half is random in eval mode: {FRESH}")
        return cls(model, weights, whole, (cut,), both, bundle, notes, random=random)

    def tried(self, x: Tensor) -> "Subject":
        """The same, with every configuration that answers one image in two ways taken for random.

        Every edge half, and what stands behind it, is run on the same images again: halves that were built by hand, or
        a defence that draws inside, may be random without anybody having said so. x: (n, C, H, W) in [0, 1], a few.

        Raises:
            InputError: one draws from a generator of its own, so that no result could be had again.
        """
        steady = dict[int, bool]()
        found = []
        for c in self.configurations:
            edge = c.split.edge
            if id(edge) not in steady:
                steady[id(edge)] = c.random or _steady(edge, x, c.cut.name)
            as_told = c.random or (steady[id(edge)] and (c.stochastic or _steady(c.protected.sent, x, c.cut.name)))
            found.append(c if as_told else replace(c, random=True))
        names = [c.cut.name for c, told in zip(found, self.configurations, strict=True) if c.random != told.random]
        if not names:
            return self
        note = f"what crosses at {', '.join(dict.fromkeys(names))} is random without saying so: {FRESH}"
        return replace(self, configurations=tuple(found), notes=(*self.notes, note), random=True)

    @classmethod
    def of_shipped(cls, shipped: Shipped, x: Tensor, *, model: str, weights: str, bundle: str = "") -> "Subject":
        """A bundle by the graph of its edge half, and nothing beside it.

        The halves with nothing between them are not in the graph; those of the floats are in the float bundle's audit.

        Args:
            shipped: see `splitveil.lab.restoring.restore_shipped`.
            x: (n, C, H, W) uint8, images on which the stand-in is held against the graph.
            model: name for the card.
            weights: description for the card.
            bundle: folder name.
        """
        own = Configuration(shipped.split.cut, shipped.eval())
        frozen(shipped)
        frozen(shipped.floats)
        found = shipped.compared(x)
        return cls(
            model,
            weights,
            ShippedOutside(shipped),
            (own.cut,),
            (own,),
            bundle,
            (*_never(own.protected), found.words),
            found,
        )


def _draws(edge: nn.Module, image: tuple[int, ...]) -> bool:
    """Whether an edge half is random by itself; where nobody said what an image is, it is taken not to be."""
    like = next(edge.parameters(), torch.zeros(()))
    return bool(image) and draws(edge, torch.full((2, *image), 0.5, device=like.device))


def _steady(sends: Callable[[Tensor], Tensor], x: Tensor, cut: str) -> bool:
    """Whether the same images become the same features each time."""

    def sent(seed: int) -> Tensor:
        with torch.no_grad(), seeded(seed):
            return sends(x)

    first = sent(0)
    room = ALIKE * float(first.abs().max())
    if float((sent(0) - first).abs().max()) > room:
        raise InputError(
            f"expected what crosses at {cut} to be the same for the same seed, got something else each time: it draws "
            "from a generator of its own or counts its calls; let it draw from torch's, or not at all."
        )
    return all(float((sent(seed) - first).abs().max()) <= room for seed in OTHERS)


class Halfway(nn.Module):
    """A split that shows its features: image -> (logits, (features,))."""

    def __init__(self, split: Split, rest: nn.Module | None = None) -> None:
        super().__init__()
        self.split, self.rest = split, rest or nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x: (N, C, H, W) -> (logits (N, K), (z (N, *cut),))."""
        z = self.split.edge(x)
        return self.split.cloud(self.rest(z)), (z,)


class ShippedOutside(nn.Module):
    """What ships, from the outside: image -> (logits, (image,)), for `Shipped.observe` begins with images."""

    def __init__(self, shipped: Shipped) -> None:
        super().__init__()
        self.shipped = shipped

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x: (N, C, H, W) -> (logits (N, K), (x,))."""
        return self.shipped(x), (x,)


def undefended(split: Split, defense: Defense | None = None) -> Protected:
    """The split with nothing between its halves but what the defence took over of the edge half."""
    protected = Protected(split, Undefended.beside(defense) if defense else Undefended(), CODECS.build("raw"))
    frozen(protected)
    return protected


def _notes(protected: Protected, *, alone: bool) -> tuple[str, ...]:
    if repr(protected.defense) == "none":
        return ()
    if alone:
        told = "all of the defence is in the halves, so that there is no row without it"
    else:
        told = "the halves with nothing between them (defense none) are as the defence left them, not undefended"
    return (*_never(protected), f"{told}; splitveil compare audits the undefended split")


def _never(protected: Protected) -> tuple[str, ...]:
    told = "the defence was never trained: it works by training, and got no epoch"
    return (told,) if protected.untrained else ()
