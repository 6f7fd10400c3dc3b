"""Where in a model something begins: two or three runs of copies, compared step by step.

Each takes `fresh`, which gives a copy of the model to run, and inputs with the batch first; each answers with the step
in words, or with nothing where no single step shows it.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from splitveil.lab.probing.steps import Step, walk
from splitveil.lab.seeds import seeded

Inputs = tuple[Tensor, ...]
ROUNDING = 1e-5
ROUNDING_OF_SIZES = 1e-4


class _Found(Exception):  # noqa: N818
    """Ends a run that has shown what it was for."""


def drawing_step(fresh: Callable[[], nn.Module], inputs: Inputs, seed: int) -> str:
    """The first step whose result differs with the seed, 0 or `seed`."""
    kept = _results(fresh(), inputs, 0)

    def differs(k: int, step: Step) -> bool:
        return any(not torch.equal(a, b) for a, b in zip(kept[k].made, step.made, strict=True))

    return _first(fresh(), inputs, seed, kept, differs)


def joining_step(fresh: Callable[[], nn.Module], inputs: Inputs, others: Inputs) -> str:
    """The first step with a number that changes with either of two samples. inputs, others: (2, ...) each."""
    kept = _results(fresh(), inputs, 0)
    moved: list[tuple[Tensor, ...]] = []

    def note(k: int, step: Step) -> bool:
        moved.append(tuple(_apart(a, b, ROUNDING) for a, b in zip(kept[k].made, step.made, strict=True)))
        return False

    def both(k: int, step: Step) -> bool:
        again = (_apart(a, b, ROUNDING) for a, b in zip(kept[k].made, step.made, strict=True))
        return k < len(moved) and any(bool((a & b).any()) for a, b in zip(moved[k], again, strict=True))

    def replaced(which: int) -> Inputs:
        return tuple(
            torch.stack([(b if i == which else a)[i] for i in range(2)]) for a, b in zip(inputs, others, strict=True)
        )

    _first(fresh(), replaced(0), 0, kept, note)
    return _first(fresh(), replaced(1), 0, kept, both)


def sized_step(fresh: Callable[[], nn.Module], inputs: Inputs) -> str:
    """The first step that gives a sample something else when it is there twice. inputs: (1, ...) each."""
    twice = tuple(torch.cat([t, t]) for t in inputs)
    kept = _results(fresh(), inputs, 0)

    def differs(k: int, step: Step) -> bool:
        for one, two in zip(kept[k].made, step.made, strict=True):
            grown = [i for i, (a, b) in enumerate(zip(one.shape, two.shape, strict=True)) if b == 2 * a]
            halves = two.chunk(2, grown[0]) if one.shape != two.shape and len(grown) == 1 else (two,)
            if any(h.shape == one.shape and bool(_apart(one, h, ROUNDING_OF_SIZES).any()) for h in halves):
                return True
        return False

    return _first(fresh(), twice, 0, kept, differs, sizes=False)


def poisoned_step(fresh: Callable[[], nn.Module], inputs: Inputs) -> str:
    """The step where the NaN or infinity of the answer began: masks that a softmax takes away again are none."""
    sources: dict[int, tuple[str, Tensor]] = {}
    last = ""

    def note(step: Step) -> None:
        nonlocal last
        before = next((sources[id(t)][0] for t in step.given if id(t) in sources), None)
        for t in step.made:
            if t.is_floating_point() and not bool(t.isfinite().all()):
                last = sources.setdefault(id(t), (before or step.words, t))[0]

    with seeded(0):
        answer = walk(fresh(), inputs, note)
    return sources[id(answer)][0] if id(answer) in sources else last


def _results(module: nn.Module, inputs: Inputs, seed: int) -> list[Step]:
    kept: list[Step] = []
    with seeded(seed):
        walk(module, inputs, lambda step: kept.append(Step(step.words, (), tuple(t.clone() for t in step.made))))
    return kept


def _first(
    module: nn.Module,
    inputs: Inputs,
    seed: int,
    kept: list[Step],
    telling: Callable[[int, Step], bool],
    *,
    sizes: bool = True,
) -> str:
    """The first step of this run for which `telling` holds, as long as it takes the way of the run before it."""
    k, found = 0, ""

    def look(step: Step) -> None:
        nonlocal k, found
        same = k < len(kept) and kept[k].words == step.words and len(kept[k].made) == len(step.made)
        alike = same and all(
            a.ndim == b.ndim and (not sizes or a.shape == b.shape) for a, b in zip(kept[k].made, step.made, strict=True)
        )
        if not alike or telling(k, step):
            found = step.words
            raise _Found
        k += 1

    try:
        with seeded(seed):
            walk(module, inputs, look)
    except _Found:
        return found
    return ""


def _apart(one: Tensor, other: Tensor, tolerance: float) -> Tensor:
    """Where two tensors of one shape differ by more than rounding."""
    if not one.is_floating_point():
        return one != other
    finite = one[one.isfinite()].abs()
    largest = float(finite.max()) if finite.numel() else 0.0
    return ~((one == other) | ((one - other).abs() <= tolerance * largest) | (one.isnan() & other.isnan()))
