"""Whether a model's answers can be relied on: finite, the same each time, and each image's own.

Every run has the same seed, so that a model which draws at random can be told from one that mixes its images.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from splitveil.core.errors import SplitVeilError
from splitveil.lab.probing.copies import copied, sheltered
from splitveil.lab.probing.tracking import drawing_step, joining_step, poisoned_step, sized_step
from splitveil.lab.seeds import seeded

T = TypeVar("T")

SEEDS = range(1, 17)
"""Tried until a model that draws at random answers otherwise."""
ALIKE = 1e-5
"""Difference, relative to the largest value of an answer, that is rounding among batches of one size."""
ALIKE_SIZES = 1e-3
"""The same among batches of several sizes, where no double precision can tell rounding from more."""
MIDDLE, LAST = 1, 2
ALONE = "in eval mode let it answer every image by itself"
ALWAYS = "in eval mode let it answer the same each time"
GUARD = "guard that step, by a clamp or an epsilon"


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong with a model's answers, in words; empty where all is well."""

    refused: str = ""
    """Not finite, dependent on the other images of the batch or on earlier calls; with a remedy."""
    random: str = ""
    """``random in eval mode, first at ...``."""

    @property
    def words(self) -> str:
        """The first of them."""
        return self.refused or (f"it is {self.random}; {ALWAYS}" if self.random else "")


def probe(module: nn.Module, inputs: tuple[Tensor, ...], *, images: bool) -> Findings:
    """Try `module` (eval mode) on batches of one and three. It is left as it is, and so are the global generators.

    Args:
        module: of one tensor or several, each with the batch first; answers one tensor.
        inputs: (3, ...) each, different samples.
        images: the first input is an image in [0, 1], so that black and white ones are tried as well.

    Raises:
        InputError: the module cannot be copied.
    """
    with torch.no_grad(), seeded(0):
        probing = _Probe(module, inputs)
        try:
            return probing.findings(images)
        except SplitVeilError:
            raise
        except Exception as error:  # the user's code, which runs on other samples alone: anything can be raised
            line = str(error).strip().partition("\n")[0][:200].rstrip(".")
            told = f"{type(error).__name__}: {line}" if line else type(error).__name__
            tried = "black, white or single images" if images else "single samples"
            return Findings(f"it fails on {tried} ({told}); let it answer every one that has the right shape")


def draws(module: nn.Module, x: Tensor) -> bool:
    """Whether one run (eval mode) draws random numbers from torch, NumPy or Python."""
    with torch.no_grad(), seeded(0):
        probing = _Probe(module, (x,))
        probing.run(probing.used, (x,))
        return bool(probing.drew)


def in_other_company(run: Callable[[tuple[Tensor, ...]], T], inputs: tuple[Tensor, ...]) -> T:
    """What `run` makes of the middle sample as it was, between others, as in `_otherwise`. inputs: (3, ...) each."""
    return _otherwise(lambda other: run(tuple(torch.stack([other(t[0]), t[MIDDLE], other(t[LAST])]) for t in inputs)))


def same_middle(one: Tensor, other: Tensor) -> bool:
    """Whether two results for three samples agree on the middle one, up to rounding."""
    return _alike(one[MIDDLE], other[MIDDLE], ALIKE)


class _Probe:
    def __init__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.module, self.inputs = module, inputs
        self.used = sheltered(module)
        self.drew: list[str] = []
        """Whose random numbers the last run drew."""

    def findings(self, images: bool) -> Findings:
        if images:
            plain = self.run(self.used, self.plain)
        answer = self.run(self.used, self.inputs)
        drew = self.drew
        if not _finite(answer):
            return Findings(self.poisoned("random images" if images else "random features", self.inputs))
        if images and not _finite(plain):
            k = int((~plain.isfinite()).flatten(1).any(1).nonzero()[0])
            name = ("a black image", "a white image", "a grey ramp")[k]
            return Findings(self.poisoned(name, tuple(t[k : k + 1] for t in self.plain)))
        seed = self.telling_seed(answer) if drew else None
        drawing = drawing_step(self.fresh, self.inputs, seed) if seed else ""
        if not same_middle(answer, in_other_company(partial(self.run, self.used), self.inputs)):
            told = self.remembered(answer) or self.joined(drawing)
            if told:
                return Findings(told)
        if seed:
            other = " and ".join(g for g in drew if g != "torch")
            words = "random in eval mode" + (f" (by {other})" if other else "")
            return Findings(random=_first(words, drawing))
        if not drew:
            alone = self.run(self.fresh(), tuple(t[LAST:] for t in self.inputs))
            if not _alike(answer[LAST], alone[0], ALIKE):
                return Findings(self.remembered(answer) or self.sized(answer, alone))
        return Findings()

    def fresh(self) -> nn.Module:
        return sheltered(self.module)

    def run(self, module: nn.Module, inputs: tuple[Tensor, ...], seed: int = 0) -> Tensor:
        device = self.inputs[0].device
        with seeded(seed):
            before = _generators(device)
            out: Tensor = module(*(t.clone() for t in inputs))
            after = _generators(device)
        self.drew = [name for name, state in after.items() if state != before[name]]
        return out

    @property
    def plain(self) -> tuple[Tensor, ...]:
        """A black and a white image and a ramp from black to white."""
        x = self.inputs[0]
        ramp = torch.linspace(0, 1, x[0].numel(), dtype=x.dtype, device=x.device).reshape(x[0].shape)
        return torch.stack([torch.zeros_like(ramp), torch.ones_like(ramp), ramp]), *self.inputs[1:]

    def telling_seed(self, answer: Tensor) -> int | None:
        return next((s for s in SEEDS if not torch.equal(self.run(self.fresh(), self.inputs, s), answer)), None)

    def poisoned(self, on: str, inputs: tuple[Tensor, ...]) -> str:
        weights = dict(self.module.named_parameters())
        bad = [n for n, t in weights.items() if t.is_floating_point() and not bool(t.isfinite().all())]
        bad += [n for n, t in self.module.named_buffers() if bool(t.isnan().any())]  # masks hold infinity
        if bad:
            names = ", ".join(map(repr, bad[:3]))
            return f"its answer is not finite, for its weights {names} hold NaN or infinity; train it anew"
        return f"{_first(f'its answer is not finite on {on}', poisoned_step(self.fresh, inputs))}; {GUARD}"

    def remembered(self, answer: Tensor) -> str:
        """Called again, does it answer otherwise? Then through what it keeps."""
        module = self.fresh()
        before = {name: t.clone() for name, t in _state(module).items()}
        first, second = self.run(module, self.inputs), self.run(module, self.inputs)
        if torch.equal(first, second) and torch.equal(first, answer):
            return ""
        moved = [n for n, t in _state(module).items() if not torch.equal(t, before[n])]
        through = (
            f"through the state {', '.join(map(repr, moved[:3]))}" if moved else "by a state or generator it keeps"
        )
        step = drawing_step(lambda: module, self.inputs, 0)
        return f"{_first(f'its answer to the same image changes from call to call, {through}', step)}; {ALWAYS}"

    def joined(self, drawing: str) -> str:
        """Where; nothing where it is only that random numbers are dealt out otherwise, at the step `drawing`."""
        pair = tuple(t[:2] for t in self.inputs)
        step = _otherwise(lambda other: joining_step(self.fresh, pair, tuple(other(t) for t in pair)))
        if step and step == drawing:
            return ""
        return f"{_first('its answer for an image depends on the other images of the batch', step)}; {ALONE}"

    def sized(self, answer: Tensor, alone: Tensor) -> str:
        """Batches of several sizes round in several ways: only what double precision confirms counts."""
        try:
            module = copied(self.module).double()
            exact = tuple(t.double() for t in self.inputs)
            many, one = self.run(module, exact), self.run(module, tuple(t[LAST:] for t in exact))
            same = _alike(many[LAST], one[0], ALIKE)
        except (RuntimeError, TypeError, ValueError):
            same = _alike(answer[LAST], alone[0], ALIKE_SIZES)
        if same:
            return ""
        said = "its answer for an image depends on the other images of the batch, on their number or order"
        return f"{_first(said, sized_step(self.fresh, tuple(t[:1] for t in self.inputs)))}; {ALONE}"


def _first(said: str, step: str) -> str:
    return f"{said}, first at {step}" if step else said


def _otherwise(run: Callable[[Callable[[Tensor], Tensor]], T]) -> T:
    """`run` with a change of samples to another range, or to black and white where that is not taken."""
    try:
        return run(lambda t: 3 * t.flip(-1) - 1 if t.is_floating_point() else t.flip(-1))
    except Exception:  # the user's code may insist on [0, 1] in any way
        return run(lambda t: (t.flip(-1) > 0.5).to(t.dtype))


def _finite(t: Tensor) -> bool:
    return bool(t.isfinite().all())


def _alike(one: Tensor, other: Tensor, tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    largest = float(one.abs().max()) if one.numel() else 0.0
    difference = (one - other).abs()
    return bool((difference <= tolerance * max(largest, 1e-12)).all())


def _state(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters()) | dict(module.named_buffers())


def _generators(device: torch.device) -> dict[str, Any]:
    """The state of every generator that a model may draw from."""
    numbers = np.random.get_state(legacy=False)
    on_device = torch.cuda.get_rng_state(device).tolist() if device.type == "cuda" else []
    return {
        "torch": torch.get_rng_state().tolist() + on_device,
        "NumPy": repr(numbers) + str(np.asarray(numbers["state"]["key"]).tolist()),
        "Python": random.getstate(),
    }
