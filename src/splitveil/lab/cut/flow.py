"""Liveness in a model's graph: which tensors are alive after each step, and so where it can be cut."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from splitveil.core.records import Cut
from splitveil.lab.cut.capture import function_name
from splitveil.lab.cut.costs import FP32_BYTES, NodeRun, numel
from splitveil.lab.cut.literals import LARGE, OWN, SMALL
from splitveil.lab.cut.pieces import needed

INPUT = "the input itself"
COPIES = {"clone", "constant_pad_nd", "contiguous", "dropout", "flatten", "pad", "patch_merging_pad", "reshape"}


@dataclass(frozen=True, slots=True)
class Point:
    """A step, what crosses there, and why the model cannot be cut after it (None where it can)."""

    node: fx.Node
    name: str
    crossing: tuple[str, ...]
    reason: str | None


class Flow:
    """The steps of a graph without sizes, in order; `one`, `small` and `large` are its runs on 1, 2 and 3 images.

    A step is a node whose value depends on the input. Weights and what follows from them alone do not flow: each half
    computes that for itself.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        one: Mapping[fx.Node, NodeRun],
        small: Mapping[fx.Node, NodeRun],
        large: Mapping[fx.Node, NodeRun],
        saved: frozenset[str],
    ) -> None:
        self.module, self.one, self.small, self.large, self.saved = module, one, small, large, saved
        self.input = next(n for n in module.graph.nodes if n.op == "placeholder")
        self.output = next(iter(reversed(module.graph.nodes)))
        self.result: Any = self.output.args[0]
        self.order = [self.input]
        flowing = {self.input}
        for node in module.graph.nodes:
            inner = node.op not in ("placeholder", "output") and OWN not in node.meta
            if inner and not flowing.isdisjoint(node.all_input_nodes):
                flowing.add(node)
                self.order.append(node)
        self.position = {n: i for i, n in enumerate(self.order)}
        end = len(self.order)
        self._last_use = {
            n: max((self.position.get(u, end) for u in n.users if OWN not in u.meta), default=-1) for n in self.order
        }
        self._weights = {n: frozenset(self._weights_of(n)) for n in module.graph.nodes}
        self._macs = self._sum_macs(needed([self.output], self.input))

    @cached_property
    def points(self) -> list[Point]:
        """Every step but the input, in order."""
        names = self._names()
        alive: list[fx.Node] = [self.input]
        points = []
        for i, node in enumerate(self.order[1:], 1):
            alive = [n for n in (*alive, node) if self._last_use[n] > i]
            crossing = tuple(INPUT if n is self.input else repr(names[n]) for n in alive)
            points.append(Point(node, names[node], crossing, self._reason(node, alive, crossing)))
        return points

    @cached_property
    def legal(self) -> list[list[Point]]:
        """Legal points, those that hold the same numbers together; the one to cut at comes first in each group."""
        groups: defaultdict[fx.Node, list[Point]] = defaultdict(list)
        for point in self.points:
            if point.reason is None:
                groups[self._same_numbers(point.node)].append(point)
        return [sorted(g, key=lambda p: (self.axis(p.node) != 0, *_depth(p.node))) for g in groups.values()]

    def axis(self, node: fx.Node) -> int | None:
        """Which axis of a step's tensor is the batch; None where no single one is."""
        small, large = (tuple(run[node].value.shape) for run in (self.small, self.large))
        if len(small) != len(large):
            return None
        grown = [i for i, sizes in enumerate(zip(small, large, strict=True)) if sizes[0] != sizes[1]]
        return grown[0] if len(grown) == 1 and (small[grown[0]], large[grown[0]]) == (SMALL, LARGE) else None

    def copied(self, node: fx.Node) -> list[str]:
        """Names of the constants that both halves of a cut at `node` read, and so hold."""
        before, after = self._read([node], self.input), self._read([self.output], node)
        return sorted(self._named[w][0] for w in before & after)

    def cut(self, index: int) -> Cut:
        """The record of the group `legal[index]`."""
        points = self.legal[index]
        node = points[0].node
        before = needed([node], self.input)
        edge, elements = self._sum_macs(before), numel(self._shape(node))
        mine = set().union(*(self._weights[n] for n in before))
        whole = self._parameters(set().union(*self._weights.values()))
        ends = (name for p in sorted(points, key=lambda p: self.position[p.node]) for name in p.node.meta["ends"])
        return Cut(
            name=points[0].name,
            index=index,
            shape=self._shape(node),
            also=tuple(name for name in ends if name != points[0].name),
            bytes_fp32=FP32_BYTES * elements,
            bytes_u8=elements,
            edge_macs=edge,
            cloud_macs=self._macs - edge,
            edge_params=self._parameters(mine),
            cloud_params=whole - self._parameters(mine),
            edge_share=edge / self._macs,
            edge_peak_bytes=max(self.memory[: self.position[node] + 1]),
        )

    @cached_property
    def memory(self) -> list[int]:
        """Bytes of fp32 activations alive while each step runs, its result included; one sample, views counted once."""
        alive: dict[fx.Node, NodeRun] = {}
        totals = []
        for i, node in enumerate(self.order):
            alive = {n: s for n, s in alive.items() if self._last_use[n] >= i} | {node: self.one[node]}
            storages: dict[int, int] = {}
            for step in alive.values():
                storages |= step.memory
            totals.append(sum(storages.values()))
        return totals

    def _reason(self, node: fx.Node, alive: list[fx.Node], crossing: tuple[str, ...]) -> str | None:
        others = [what for n, what in zip(alive, crossing, strict=True) if n is not node]
        if others:
            return f"{listed(others)} would cross as well"
        value = self.one[node].value
        if not isinstance(value, Tensor):
            return "several tensors would cross"
        if not value.is_floating_point():
            return f"{str(value.dtype).removeprefix('torch.')} values would cross"
        if self.axis(node) is None:
            return "what would cross has something else than the batch as its first axis"
        before = needed([node], self.input)
        if not self._sum_macs(before):
            return f"{INPUT} would cross, only rearranged or rescaled"
        if self._macs == self._sum_macs(before):
            return "nothing would be left to compute behind it"
        tied = self._read([node], self.input) & self._read([self.output], node) & self._trained
        if tied:
            found = ", ".join(repr(self._named[w][0]) for w in sorted(tied)[:3])
            return f"both halves would need the weights {found}, and two copies would be trained apart"
        return None

    def _read(self, outputs: list[fx.Node], source: fx.Node) -> set[int]:
        return set().union(*(self._weights[n] for n in needed(outputs, source) - {source} | set(outputs)))

    @cached_property
    def _trained(self) -> set[int]:
        """What training changes: parameters that take a gradient, and the statistics that normalisation gathers."""
        norms = (m for m in self.module.modules() if isinstance(m, nn.modules.batchnorm._NormBase))
        learned = {id(p) for p in self.module.parameters() if p.requires_grad}
        return learned | {id(b) for norm in norms for b in norm.buffers(recurse=False)}

    def _names(self) -> dict[fx.Node, str]:
        """Outermost module that ends at a step; else the last module before it and the functions since."""
        names, taken, base, since = dict[fx.Node, str](), Counter[str](), "input", list[str]()
        taken.update(name for n in self.order for name in n.meta["ends"])
        for node in self.order[1:]:
            if ends := node.meta["ends"]:
                base, since = outermost(ends), []
                names[node] = base
                continue
            since.append(function_name(node))
            name = "+".join([base, *since])
            taken[name] += 1
            names[node] = name if taken[name] == 1 else f"{name}#{taken[name]}"
        return names

    def _same_numbers(self, node: fx.Node) -> fx.Node:
        """Go back over steps that only rearrange or rename."""
        while True:
            sources = [n for n in node.all_input_nodes if n in self.position]
            if len(sources) != 1 or len(self.one[node].tensors) != 1 or len(self.one[sources[0]].tensors) != 1:
                return node
            old, new = self.one[sources[0]], self.one[node]
            copies = node.op != "call_module" and function_name(node) in COPIES
            if old.tensors[0].numel() != new.tensors[0].numel() or not (
                copies or old.memory.keys() == new.memory.keys()
            ):
                return node
            node = sources[0]

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        axis = self.axis(node)
        return tuple(size for i, size in enumerate(self.small[node].value.shape) if i != axis)

    def _sum_macs(self, nodes: set[fx.Node]) -> int:
        return sum(self.one[n].macs for n in nodes if n in self.one)

    @cached_property
    def _named(self) -> dict[int, tuple[str, Tensor]]:
        """Weights by identity, so that tied ones are one."""
        tensors: dict[int, tuple[str, Tensor]] = {}
        for name, tensor in (
            *self.module.named_parameters(remove_duplicate=False),
            *self.module.named_buffers(remove_duplicate=False),
        ):
            tensors.setdefault(id(tensor), (name, tensor))
        return tensors

    def _weights_of(self, node: fx.Node) -> Iterator[int]:
        """Identities of the saved tensors that a node reads."""
        if node.op == "get_attr" and node.target in self.saved:
            yield id(_attribute(self.module, str(node.target)))
        elif node.op == "call_module":
            layer = self.module.get_submodule(str(node.target))
            yield from (id(t) for k, t in layer.state_dict(keep_vars=True).items() if isinstance(t, Tensor))

    def _parameters(self, weights: set[int]) -> int:
        return sum(t.numel() for w in weights if isinstance(t := self._named[w][1], nn.Parameter))


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def outermost(ends: tuple[str, ...]) -> str:
    """`layer1` of `layer1.2.relu`, `layer1.2` and `layer1`."""
    return min(reversed(ends), key=lambda name: name.count("."))


def _depth(node: fx.Node) -> tuple[bool, int]:
    ends = node.meta["ends"]
    return (not ends, outermost(ends).count(".") if ends else 0)


def _attribute(module: nn.Module, path: str) -> torch.Tensor:
    holder, _, name = path.rpartition(".")
    found: torch.Tensor = getattr(module.get_submodule(holder), name)
    return found
