"""Every legal cut of a model, found by tracing it, and the halves of each, checked bit for bit."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from splitveil.core.arguments import checked
from splitveil.core.errors import CutError
from splitveil.core.records import Cut
from splitveil.core.registry import nearest
from splitveil.lab.cut.attention import without_fast_path
from splitveil.lab.cut.capture import Unclean, complaint, exported, no_fast_path, symbolic
from splitveil.lab.cut.costs import steps
from splitveil.lab.cut.flow import Flow
from splitveil.lab.cut.gaps import Gap, find_gaps
from splitveil.lab.cut.literals import LARGE, SMALL, without_sizes
from splitveil.lab.cut.pieces import Piece, Split, piece
from splitveil.lab.cut.probing import (
    cover,
    hold_training,
    like_weights,
    made_ready,
    output,
    probed,
    random_images,
    refuse_joined,
)
from splitveil.lab.probing import copied
from splitveil.lab.seeds import seeded
from splitveil.lab.silence import quiet
from splitveil.lab.wrappers import uncompiled, unwrapped

BATCHES = (1, SMALL, LARGE)
SEEDS = (0, 1)
"""A graph of a model that draws at random must draw as the model does, whatever the seed."""
LISTED = 20


class Traced:
    """A model's graph and its legal cuts; made by `trace`. Later changes of the model do not reach it.

    Attributes:
        tracer: ``fx`` (halves are made of the model's own layers, which train as before, except
            for dropout written as a function) or ``export``, ``functional export`` (halves compute
            what the model computes in eval mode; BatchNorm and dropout no longer switch to training).
        why: what kept fx from being used; empty where it was.
        random: ``random in eval mode, first at ...``; empty where the model is not.
    """

    def __init__(
        self,
        flow: Flow,
        tracer: str,
        why: str,
        expected: dict[int, tuple[Tensor, Tensor]],
        modules: set[str],
        random: str = "",
    ) -> None:
        self.tracer, self.why, self.random = tracer, why, random
        self._flow, self._expected, self._modules = flow, expected, modules
        self._cuts = [flow.cut(i) for i in range(len(flow.legal))]
        self._at = {name: p for p in reversed(flow.points) for name in (*p.node.meta["passes"],)}
        self._at |= {name: p for p in flow.points for name in (p.name, *p.node.meta["ends"])}
        self._group = {p.node: i for i, group in enumerate(flow.legal) for p in group}

    @property
    def peak_bytes(self) -> int:
        """Largest sum of live fp32 activations of one sample over the whole model."""
        return max(self._flow.memory)

    def cuts(self) -> list[Cut]:
        """Every legal cut, shallowest first. Steps that hold the same numbers in another order are one cut."""
        return list(self._cuts)

    def split(self, at: str) -> Split:
        """Both halves at the cut `at` (its name or one of `also`), in eval mode, sharing nothing with the model.

        Raises:
            CutError: no legal cut there, or the halves do not reproduce the model bit for bit.
        """
        index = self._find(at)
        node = self._flow.legal[index][0].node
        edge = self._piece(self._flow.input, node, "Edge")
        cloud = self._piece(node, self._flow.result, "Cloud")
        halves = Split(edge, cloud, self._cuts[index], tuple(self._expected[1][0].shape[1:])).eval()
        self._check(halves, f"the halves at {at!r}")
        return halves

    def tap(self, at: Sequence[str]) -> nn.Module:
        """A module that returns the model's output and z at every cut of `at`, in that order, from one pass.

        Raises:
            CutError: no legal cut at one of them.
        """
        nodes = tuple(self._flow.legal[self._find(name)][0].node for name in at)
        tapped = self._piece(self._flow.input, (self._flow.result, nodes), "Tap").eval()
        self._check(lambda x: tapped(x)[0], "the tapped model")
        return tapped

    def _piece(self, source: fx.Node, result: Any, name: str) -> Piece:
        crossing = [n for n in self._group if n in (source, result) or isinstance(result, tuple)]
        axes = {n: axis for n in crossing if (axis := self._flow.axis(n))}
        shared = {w for n in (source, result) if n in self._group for w in self._flow.copied(n)}
        return piece(self._flow.module, source, result, name, self._flow.saved, axes=axes, constants=shared)

    def _check(self, module: Callable[[Tensor], Tensor], what: str) -> None:
        for batch in (1, LARGE):
            x, out = self._expected[batch]
            with torch.no_grad(), no_fast_path(), seeded(SEEDS[0]):
                found = module(x)
            if not torch.equal(found, out):
                drawn = f", which is {self.random}," if self.random else ""
                raise CutError(
                    f"{what} and the model{drawn} disagree for {batch} images; write halves by hand: halves()."
                )

    def copied(self, at: str) -> list[str]:
        """Constants that blocks on both sides of the cut `at` read, as rotary tables are: each half has them.

        Constant are buffers, except for the statistics of a normalisation, and parameters that take no gradient.

        Raises:
            CutError: no legal cut there.
        """
        return self._flow.copied(self._flow.legal[self._find(at)][0].node)

    def gaps(self) -> list[Gap]:
        """Long stretches without a legal cut, and why; shallowest first."""
        return find_gaps(self._flow)

    def _find(self, at: str) -> int:
        names = [c.name for c in self._cuts]
        point = self._at.get(at)
        if point is None:
            where = "is no single step of this model" if at in self._modules else "is not in this model"
            listed = ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
            raise CutError(f"{at!r} {where}.{nearest(at, names)} Legal cuts: {listed or 'none'}.")
        if point.node in self._group:
            return self._group[point.node]
        here = self._flow.position[point.node]
        places = [self._flow.position[g[0].node] for g in self._flow.legal]
        before = [n for n, place in zip(names, places, strict=True) if place < here][-1:]
        after = [n for n, place in zip(names, places, strict=True) if place > here][:1]
        near = [f"{n!r} {side}" for side, found in (("before", before), ("after", after)) for n in found]
        remedy = f"cut at the nearest legal place, {' or '.join(near)}" if near else "this model has no legal cut"
        raise CutError(f"cannot cut at {at!r}: {point.reason}; {remedy}.")


@checked
def trace(model: nn.Module, example: Tensor, *, logits: str | int | None = None) -> Traced:
    """Find all cuts of `model` once; `example`: (N, C, H, W), float, any N, only its shape matters.

    The graph is used only if it computes exactly what the model computes in eval mode, for one, two and three images.
    Weights of another kind than 32-bit floats are converted to those, or to 64-bit ones for an example of such. A
    model that draws at random in eval mode is cut as it is; `Traced.random` says so.

    Args:
        model: left as it is; its mode does not matter.
        example: see above.
        logits: key, field or place of the logits, for a model that answers with more than one tensor.

    Raises:
        CutError: neither ``torch.fx`` nor ``torch.export`` can follow the model; it does not take such images; its
            answer is not finite or depends on the other images of the batch or on earlier calls.
        InputError: arguments of another kind, or a model that cannot be copied.
    """
    with quiet(), uncompiled():
        return _trace(unwrapped(model), example, logits)


def _trace(model: nn.Module, example: Tensor, logits: str | int | None) -> Traced:
    if example.ndim < 2 or not example.is_floating_point():
        raise CutError(f"expected an example of shape (N, C, H, W), float, got {tuple(example.shape)} {example.dtype}.")
    work = made_ready(model, example, logits)
    without_fast_path(work)
    example = like_weights(example[:1], work)
    images = {n: random_images(example, n) for n in BATCHES}
    expected = {n: (images[n], output(work, images[n], SEEDS[0])) for n in (1, LARGE)}
    hold_training(work, images[1])
    hidden, random = probed(work, images[LARGE])
    seeds = SEEDS if random else SEEDS[:1]
    lively = {n: (images[n], [output(work, images[n], seed) for seed in seeds]) for n in BATCHES}
    failures: dict[str, str] = {}
    ways: dict[str, Callable[[nn.Module], fx.GraphModule]] = {
        "fx": symbolic,
        "export": lambda own: exported(own, images[SMALL], functional=False),
        "functional export": lambda own: exported(own, images[SMALL], functional=True),
    }
    for tracer, capture in ways.items():
        own = copied(work)  # a tracer leaves behind in the model whatever the model keeps between calls
        try:
            with seeded(SEEDS[0]), no_fast_path():
                flow = _flow(capture(own), lively, frozenset(model.state_dict()))
        except Unclean as why:
            failures[tracer] = str(why)
            continue
        if not random:  # draws are dealt out by what else is in the batch
            refuse_joined(flow, images[LARGE])
        for owner in (own, flow.module):
            cover(owner, hidden)
        modules = {name for name, _ in model.named_modules()}
        return Traced(flow, tracer, _told(failures), expected, modules, random)
    told = f"the model is {random} and cannot be traced" if random else "cannot trace the model"
    raise CutError(f"{told} ({_told(failures)}); write both halves by hand and join them: halves().")


def _told(failures: dict[str, str]) -> str:
    """Every tracer's complaint; the same one twice is told once."""
    reasons = dict[str, str]()
    for tracer, why in failures.items():
        reasons.setdefault(why, tracer)
    return "; ".join(f"{tracer}: {why}" for why, tracer in reasons.items())


@checked
def cuts(model: nn.Module, example: Tensor, *, logits: str | int | None = None) -> list[Cut]:
    """Every legal cut of `model`, shallowest first; `example`: (N, C, H, W). See `trace`.

    Raises:
        CutError: the model cannot be traced.
    """
    return trace(model, example, logits=logits).cuts()


@checked
def split(model: nn.Module, at: str, example: Tensor, *, logits: str | int | None = None) -> Split:
    """Both halves of `model` at the cut `at`; `example`: (N, C, H, W). See `trace` and `Traced.split`.

    Raises:
        CutError: no legal cut there; the message says what else would cross and names the nearest legal cuts.
    """
    return trace(model, example, logits=logits).split(at)


@checked
def tap(model: nn.Module, at: Sequence[str], example: Tensor, *, logits: str | int | None = None) -> nn.Module:
    """A module x -> (output, z at every cut of `at`) in one pass; `example`: (N, C, H, W). See `trace`, `Traced.tap`.

    Raises:
        CutError: no legal cut at one of them.
    """
    return trace(model, example, logits=logits).tap(at)


def _flow(captured: fx.GraphModule, lively: dict[int, tuple[Tensor, list[Tensor]]], saved: frozenset[str]) -> Flow:
    x = lively[1][0]
    try:
        small, large = steps(captured, x, SMALL), steps(captured, x, LARGE)
        module, origin = without_sizes(captured, small, large)
        one = steps(module, x, 1)
    except Unclean:
        raise
    except Exception as error:  # fake tensors run the user's operators: anything can be raised
        raise Unclean(f"shapes: {complaint(error)}") from error
    _check_graph(module, lively)
    old = {new: (small[was], large[was]) for new, was in origin.items()}
    return Flow(module, one, {n: s for n, (s, _) in old.items()}, {n: s for n, (_, s) in old.items()}, saved)


def _check_graph(module: fx.GraphModule, lively: dict[int, tuple[Tensor, list[Tensor]]]) -> None:
    for n, (x, outs) in lively.items():
        for seed, out in zip(SEEDS, outs, strict=False):
            with torch.no_grad(), no_fast_path(), seeded(seed):
                found = _NothingOverwritten(module).run(x)
            if not isinstance(found, Tensor) or not torch.equal(found, out):
                also = "" if seed == SEEDS[0] else ", unless the seed is the one it was traced with"
                raise Unclean(f"the graph and the model disagree for {n} images{also}")


class _NothingOverwritten(fx.Interpreter):
    """Runs a graph and sees to it that no step changes what an earlier one yielded."""

    def run_node(self, n: fx.Node) -> Any:
        args = [self.env[a] for a in n.all_input_nodes if isinstance(self.env[a], Tensor)]
        before = [a._version for a in args]
        value = super().run_node(n)
        if [a._version for a in args] != before:
            raise Unclean(f"{n.name} overwrites its input")
        return value
