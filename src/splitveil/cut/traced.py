"""Every legal cut of a model, found by tracing it, and the halves of each, checked bit for bit."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from splitveil.cut.attention import without_fast_path
from splitveil.cut.capture import Unclean, complaint, exported, first_line, no_fast_path, symbolic
from splitveil.cut.costs import steps
from splitveil.cut.flow import Flow
from splitveil.cut.gaps import Gap, find_gaps
from splitveil.cut.literals import LARGE, SMALL, without_sizes
from splitveil.cut.pieces import Half, Split, piece
from splitveil.errors import CutError
from splitveil.records import Cut
from splitveil.registry import nearest
from splitveil.silence import quiet
from splitveil.wrappers import uncompiled, unwrapped

BATCHES = (1, SMALL, LARGE)
LISTED = 20
TINY = 1e-3


class Traced:
    """A model's graph and its legal cuts; made by `trace`. Later changes of the model do not reach it.

    Attributes:
        tracer: ``fx`` (halves are made of the model's own layers, which train as before, except
            for dropout written as a function) or ``export``, ``functional export`` (halves compute
            what the model computes in eval mode; BatchNorm and dropout no longer switch to training).
        why: what kept fx from being used; empty where it was.
    """

    def __init__(
        self, flow: Flow, tracer: str, why: str, expected: dict[int, tuple[Tensor, Tensor]], modules: set[str]
    ) -> None:
        self.tracer, self.why = tracer, why
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

    def _piece(self, source: fx.Node, result: Any, name: str) -> Half:
        crossing = [n for n in self._group if n in (source, result) or isinstance(result, tuple)]
        axes = {n: axis for n in crossing if (axis := self._flow.axis(n))}
        shared = {w for n in (source, result) if n in self._group for w in self._flow.copied(n)}
        return piece(self._flow.module, source, result, name, self._flow.saved, axes=axes, constants=shared)

    def _check(self, module: Callable[[Tensor], Tensor], what: str) -> None:
        with torch.no_grad(), no_fast_path():
            for batch in (1, LARGE):
                x, out = self._expected[batch]
                if not torch.equal(module(x), out):
                    raise CutError(f"{what} and the model disagree for {batch} images; write halves by hand: halves().")

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


def trace(model: nn.Module, example: Tensor) -> Traced:
    """Find all cuts of `model` once; `example`: (N, C, H, W), float, any N, only its shape matters.

    The graph is used only if it computes exactly what the model computes in eval mode, for one, two and three images.

    Raises:
        CutError: neither ``torch.fx`` nor ``torch.export`` can follow the model.
    """
    with quiet(), uncompiled():
        return _trace(unwrapped(model), example)


def _trace(model: nn.Module, example: Tensor) -> Traced:
    if example.ndim < 2 or not example.is_floating_point():
        raise CutError(f"expected an example of shape (N, C, H, W), float, got {tuple(example.shape)} {example.dtype}.")
    work = _one_argument(copy.deepcopy(model)).eval()
    without_fast_path(work)
    given = next(work.parameters(), example)
    example = example[:1].to(given.device)
    images = {n: _images(example, n) for n in BATCHES}
    expected = {n: (images[n], _output(work, images[n])) for n in (1, LARGE)}
    hidden = _uncover(work)
    lively = {n: (images[n], _output(work, images[n])) for n in BATCHES}
    failures: dict[str, str] = {}
    ways: dict[str, Callable[[], fx.GraphModule]] = {
        "fx": lambda: symbolic(work),
        "export": lambda: exported(work, images[SMALL], functional=False),
        "functional export": lambda: exported(work, images[SMALL], functional=True),
    }
    for tracer, capture in ways.items():
        try:
            with no_fast_path():
                flow = _flow(capture(), lively, frozenset(model.state_dict()))
        except Unclean as why:
            failures[tracer] = str(why)
            continue
        for owner in (work, flow.module):
            parameters = dict(owner.named_parameters(remove_duplicate=False))
            for name in hidden.keys() & parameters.keys():
                parameters[name].data.copy_(hidden[name])
        return Traced(flow, tracer, _told(failures), expected, {name for name, _ in model.named_modules()})
    raise CutError(f"cannot trace the model ({_told(failures)}); write both halves by hand and join them: halves().")


def _told(failures: dict[str, str]) -> str:
    """Every tracer's complaint; the same one twice is told once."""
    reasons = dict[str, str]()
    for tracer, why in failures.items():
        reasons.setdefault(why, tracer)
    return "; ".join(f"{tracer}: {why}" for why, tracer in reasons.items())


def cuts(model: nn.Module, example: Tensor) -> list[Cut]:
    """Every legal cut of `model`, shallowest first; `example`: (N, C, H, W).

    Raises:
        CutError: the model cannot be traced.
    """
    return trace(model, example).cuts()


def split(model: nn.Module, at: str, example: Tensor) -> Split:
    """Both halves of `model` at the cut `at`; `example`: (N, C, H, W). See `Traced.split`.

    Raises:
        CutError: no legal cut there; the message says what else would cross and names the nearest legal cuts.
    """
    return trace(model, example).split(at)


def tap(model: nn.Module, at: Sequence[str], example: Tensor) -> nn.Module:
    """A module x -> (output, z at every cut of `at`) in one pass; `example`: (N, C, H, W). See `Traced.tap`.

    Raises:
        CutError: no legal cut at one of them.
    """
    return trace(model, example).tap(at)


def _flow(captured: fx.GraphModule, lively: dict[int, tuple[Tensor, Tensor]], saved: frozenset[str]) -> Flow:
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


def _check_graph(module: fx.GraphModule, lively: dict[int, tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad(), no_fast_path():
        for n, (x, out) in lively.items():
            found = _NothingOverwritten(module).run(x)
            if not isinstance(found, Tensor) or not torch.equal(found, out):
                raise Unclean(f"the graph and the model disagree for {n} images")


class _NothingOverwritten(fx.Interpreter):
    """Runs a graph and sees to it that no step changes what an earlier one yielded."""

    def run_node(self, n: fx.Node) -> Any:
        args = [self.env[a] for a in n.all_input_nodes if isinstance(self.env[a], Tensor)]
        before = [a._version for a in args]
        value = super().run_node(n)
        if [a._version for a in args] != before:
            raise Unclean(f"{n.name} overwrites its input")
        return value


def _output(model: nn.Module, x: Tensor) -> Tensor:
    try:
        with torch.no_grad(), no_fast_path():
            out = model(x.clone())
    except (RuntimeError, ValueError, TypeError) as error:
        shape = tuple(x.shape[1:])
        raise CutError(
            f"the model does not run on images of shape {shape}: {first_line(error)}; "
            "give an example like its real input."
        ) from error
    if not isinstance(out, Tensor):
        raise CutError(
            f"expected a model that returns one tensor, got {type(out).__name__}; wrap it to return its logits."
        )
    return out


def _images(example: Tensor, n: int) -> Tensor:
    noise = torch.rand((n, *example.shape[1:]), generator=torch.Generator().manual_seed(n))
    return noise.to(example)


def _uncover(model: nn.Module) -> dict[str, Tensor]:
    """Give life to weights that start at zero and would make any comparison pass; the old values by name."""
    hidden = {}
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if weight.numel() and weight.abs().max() < TINY:
            hidden[name] = weight.detach().clone()
            weight.data.copy_(torch.randn(weight.shape, generator=generator) / 10)
    return hidden


def _one_argument(model: nn.Module) -> nn.Module:
    """The same model, called with the image alone; its other arguments keep their defaults."""
    base: Any = type(model)

    class OneArgument(base):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Any:
            return super().forward(x)

    model.__class__ = OneArgument
    return model
