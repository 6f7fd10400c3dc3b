"""Several defences at once, each doing its part in turn."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.core.registry import outside_brackets
from splitveil.lab.cut import Split
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Adversary, Batch, Defense, Sample, Stage
from splitveil.lab.law import After, Law
from splitveil.wire.codecs import Codec


class Chain(Defense):
    """Defences in the order in which features pass them: ``chain:of=[siftfunnel:channels=8 + noise:sigma=0.3]``.

    Losses add up, what one of them freezes stays frozen, and a co-trained adversary serves all that ask for one. Of
    several that draw noise each has its own.

    Args:
        of: specs, with a plus sign between them.

    Raises:
        InputError: fewer than two; two that train in stages of their own or set the task's loss; a defence that
            rebuilds its edge from its weights (``patrol``) before the last; one that measures the edge's features
            (``noise_for_floor``) behind one that changes them; when installed, one that changes the shape of what
            crosses behind one that acts on it, or one that acts inside the edge (``pripro:layers=2``) beside another.
    """

    name: ClassVar[str] = "chain"

    def __init__(self, *, of: str = "siftfunnel + noise") -> None:
        super().__init__()
        specs = [text.strip() for text in outside_brackets(of, "+")]
        if len(specs) < 2 or not all(specs):
            raise InputError(f"expected two defences or more, got {of!r}; use chain:of=[label_smoothing + noise].")
        parts = [DEFENSES.build(spec) for spec in specs]
        self.parts = nn.ModuleList(parts)
        for told, does in ((_staged(parts), "trains in stages of its own"), (_tasked(parts), "sets the task's loss")):
            if len(told) > 1:
                raise InputError(f"each of {' and '.join(p.name for p in told)} {does}; chain only one of them.")
        for part in parts[:-1]:
            if _does(part, "restored"):
                raise InputError(f"{part.name} changes the shape of the edge after training; put it last in the chain.")
        for k, part in enumerate(parts):
            if part.measures and (first := next((p for p in parts[:k] if p.acts), None)):
                raise InputError(f"{part.name} measures the edge's own features; put it before {first.name}.")
        self.measures = any(p.measures for p in parts)  # type: ignore[misc]
        self.stochastic = any(p.stochastic for p in parts)  # type: ignore[misc]
        self.trains = frozenset.intersection(*(p.trains for p in parts))  # type: ignore[misc]

    @property
    def of(self) -> str:
        """Its parts, written out."""
        return " + ".join(map(repr, self._each()))

    @property
    def needs_training(self) -> bool:
        return any(p.needs_training for p in self._each())

    @property
    def acts(self) -> bool:
        return any(p.acts for p in self._each())

    def install(self, split: Split) -> Split:
        acting: list[Defense] = []
        for part in self._each():
            shape = split.cut.shape
            split = part.install(split)
            if acting and split.cut.shape != shape:
                raise InputError(f"{part.name} changes the shape of what crosses; put it before {acting[0].name}.")
            acting += [part] if part.acts else []
        if len(acting) > 1 and (inner := next((p for p in acting if p.rest() is not None), None)):
            raise InputError(f"{inner.name} at several layers acts inside the edge half; chain it with losses only.")
        return split

    def study(self, split: Split, sample: Sample) -> None:
        for part in self._each():
            part.study(split, sample)

    def restored(self, split: Split, weights: dict[str, Tensor]) -> Split:
        *others, last = self._each()
        for part in others:
            split = part.install(split)
        return last.restored(split, weights)

    def stages(self) -> tuple[Stage, ...]:
        if not (staged := _staged(self._each())):
            return (super().stages()[0]._replace(last=any(p.stages()[0].last for p in self._each())),)
        kept = frozenset.intersection(*(p.trains for p in self._each() if p is not staged[0])) | {"defense"}
        return tuple(s._replace(trains=s.trains & kept) for s in staged[0].stages())

    def enter(self, split: Split, stage: Stage) -> Split:
        for part in self._each():
            split = part.enter(split, stage)
        return split

    def rest(self) -> nn.Module | None:
        return next((r for p in self._each() if (r := p.rest()) is not None), None)

    def calibrate(self, z: Tensor) -> None:
        with torch.no_grad():
            for part in self._each():
                part.calibrate(z)
                z = part.mean(z)

    def noise_shape(self, h: tuple[int, ...]) -> tuple[int, ...]:
        drawing = [p for p in self._each() if p.stochastic]
        if len(drawing) == 1:
            return drawing[0].noise_shape(h)
        return (sum(math.prod(p.noise_shape(h)) for p in drawing),)

    def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
        return self.traced(z, noise)[0]

    def traced(self, z: Tensor, noise: Tensor | None = None) -> tuple[Tensor, dict[Defense, Tensor]]:
        noise = self.drawn(z) if noise is None else noise
        reached, shape, start = dict[Defense, Tensor]({self: z}), tuple(z.shape[1:]), 0
        several = sum(p.stochastic for p in self._each()) > 1
        for part in self._each():
            own = noise if part.stochastic else None
            if own is not None and several:
                drawn = part.noise_shape(shape)
                own = own[:, start : start + math.prod(drawn)].unflatten(1, drawn)
                start += math.prod(drawn)
            z, inside = part.traced(z, own)
            reached |= inside
        return z, reached

    def mean(self, z: Tensor) -> Tensor:
        for part in self._each():
            z = part.mean(z)
        return z

    def spread(self, z: Tensor) -> Tensor | None:
        *others, last = self._each()
        return None if any(p.stochastic for p in others) else last.spread(z)

    def expected(self, z: Tensor) -> tuple[Tensor, Tensor] | None:
        last, z = self._last(z)
        return None if last is None else last.expected(z)

    def laws(self, z: Tensor) -> list[tuple[Tensor, Tensor]]:
        last, z = self._last(z)
        return [] if last is None else last.laws(z)

    def law(self, like: Tensor, codec: Codec | None = None, times: int = 1) -> Law | None:
        """Of the last part that touches features, behind the others, where none of those draws noise."""
        acting = [p for p in self._each() if p.acts]
        if not acting:
            return super().law(like, codec, times)
        *others, last = acting
        if any(p.stochastic for p in others):
            return None

        def before(h: Tensor) -> Tensor:
            for part in others:
                h = part.apply_noise(h, None)
            return h

        own = last.law(before(like), codec, times)
        return own if own is None or not others else After(before, own)

    @property
    def lawful(self) -> bool:
        acting = [p for p in self._each() if p.acts]
        return bool(acting) and acting[-1].lawful and not any(p.stochastic for p in acting[:-1])

    def task_loss(self, logits: Tensor, y: Tensor) -> Tensor:
        tasked = _tasked(self._each())
        return tasked[0].task_loss(logits, y) if tasked else super().task_loss(logits, y)

    def penalty(self, batch: Batch) -> Tensor:
        return torch.stack([p.penalty(batch._replace(h=batch.reached[p])) for p in self._each()]).sum()

    def adversary(self, cut: tuple[int, ...], image: tuple[int, int, int], classes: int) -> Adversary | None:
        wanted = [a for p in self._each() if (a := p.adversary(cut, image, classes)) is not None]
        return max(wanted, key=lambda a: sum(p.numel() for p in a.parameters()), default=None)

    def finish(self, split: Split) -> Split:
        for part in self._each():
            split = part.finish(split)
        return split

    def _last(self, z: Tensor) -> tuple[Defense | None, Tensor]:
        """The last part, if no other one draws noise, and what reaches it. z: (N, *cut)."""
        *others, last = self._each()
        for part in others:
            z = part.mean(z)
        return (None if any(p.stochastic for p in others) else last), z

    def _each(self) -> list[Defense]:
        return [p for p in self.parts if isinstance(p, Defense)]


def _does(part: Defense, method: str) -> bool:
    """Whether the defence has its own; a chain inside a chain does what one of its parts does."""
    if isinstance(part, Chain):
        return any(_does(p, method) for p in part._each())
    return getattr(type(part), method) is not getattr(Defense, method)


def _staged(parts: list[Defense]) -> list[Defense]:
    usual = Stage().name
    return [p for p in parts if any(s.name != usual for s in p.stages())]


def _tasked(parts: list[Defense]) -> list[Defense]:
    return [p for p in parts if _does(p, "task_loss")]
