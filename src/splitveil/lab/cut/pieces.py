"""`Piece` and `Split`: parts of a graph as modules of their own."""

import copy
from collections.abc import Iterable, Mapping, Set
from types import MappingProxyType
from typing import Any, cast

from torch import Tensor, fx, nn

from splitveil.core.records import Cut
from splitveil.lab.cut.literals import OWN
from splitveil.lab.cut.packing import packed, unpacked


class Piece(fx.GraphModule):
    """A part of a model under the model's own weight names; what the model does not save, neither does the part."""

    def __init__(self, root: nn.Module, graph: fx.Graph, name: str, saved: frozenset[str]) -> None:
        super().__init__(root, graph, name)
        self._save_only(saved)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Piece":
        out = cast(Piece, super().__deepcopy__(memo))
        out._save_only(self._saved)
        return out

    def __reduce__(self) -> tuple[Any, ...]:
        """With its graph as it is: torch would trace the code anew, and give a module of another class."""
        held = {k: v for k, v in self.__dict__.items() if k != "_graph"}
        return _reopened, (held, packed(self.graph), type(self).__name__, self._saved)

    def _save_only(self, saved: frozenset[str]) -> None:
        self._saved = saved
        for path, module in self.named_modules():
            prefix = f"{path}." if path else ""
            module._non_persistent_buffers_set.update(
                name for name, _ in module.named_buffers(recurse=False) if prefix + name not in saved
            )


def _reopened(held: dict[str, Any], rows: list[tuple[Any, ...]], name: str, saved: frozenset[str]) -> Piece:
    root = nn.Module()
    root.__dict__.update(held)
    made = Piece(root, unpacked(rows), name, saved)
    for path, module in made.named_modules():
        module.training = root.get_submodule(path).training
    return made


class Split(nn.Module):
    """Two halves and the cut between them: ``split(x) == cloud(edge(x))``. x: (N, C, H, W), z: (N, *cut).

    Attributes:
        image: shape of one input, (C, H, W); empty where nobody said.
    """

    def __init__(self, edge: nn.Module, cloud: nn.Module, cut: Cut, image: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.edge, self.cloud, self.cut, self.image = edge, cloud, cut, image

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cloud(self.edge(x))
        return out


def needed(outputs: Iterable[fx.Node], source: fx.Node) -> set[fx.Node]:
    """All nodes that `outputs` are computed from, `source` being given."""
    found, waiting = {source}, list(outputs)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend([] if OWN in node.meta else node.all_input_nodes)
    return found


def piece(
    module: fx.GraphModule,
    source: fx.Node,
    result: Any,
    name: str,
    saved: frozenset[str],
    *,
    axes: Mapping[fx.Node, int] = MappingProxyType({}),
    constants: Set[str] = frozenset(),
) -> Piece:
    """A deep copy of what leads from `source` to `result` (nodes, nested in tuples).

    Args:
        module: the whole graph.
        source: what is given.
        result: what is handed over.
        name: of the new class.
        saved: names of what the model saves.
        axes: where a node that crosses has its batch, if not first; what is handed over has it first.
        constants: weights that the other half holds too: no longer parameters here, so that nothing trains them apart.
    """
    outputs: list[fx.Node] = []
    fx.map_arg(result, outputs.append)
    inside, graph, memo = needed(outputs, source), fx.Graph(), dict[fx.Node, fx.Node]()
    given = memo[source] = graph.placeholder("z" if source.op != "placeholder" else "x")
    if source in axes:
        memo[source] = _moved(graph, given, 0, axes[source])
    for node in module.graph.nodes:
        if node in inside and node is not source:
            memo[node] = graph.node_copy(node, memo.__getitem__ if OWN not in node.meta else lambda _: given)
    graph.output(fx.map_arg(result, lambda n: _moved(graph, memo[n], axes[n], 0) if n in axes else memo[n]))
    half = copy.deepcopy(Piece(module, graph, name, saved))
    for path in constants:
        holder, _, own = path.rpartition(".")
        owner = half.get_submodule(holder)
        if own in owner._parameters:
            owner.register_buffer(own, cast(Tensor, owner._parameters.pop(own)).detach())
    return half


def _moved(graph: fx.Graph, node: fx.Node, old: int, new: int) -> fx.Node:
    """A view, so that the steps behind the cut meet the model's own order in memory and round as it does."""
    return graph.call_method("movedim", (node, old, new))
