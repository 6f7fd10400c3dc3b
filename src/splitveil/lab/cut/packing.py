"""A graph as plain values, to be sent to another process: torch sends code, and traces it there anew."""

from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload


class _Named:
    """Stands for a node, or for an operation of torch, by its name."""

    def __init__(self, name: str, kind: str = "") -> None:
        self.name, self.kind = name, kind


def packed(graph: fx.Graph) -> list[tuple[Any, ...]]:
    """One row a node; of its `meta` what is plain."""

    def told(value: Any) -> Any:
        if isinstance(value, fx.Node):
            return _Named(value.name)
        return _Named(*value.name().split("::", 1)) if isinstance(value, OpOverload) else value

    def plain(meta: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in meta.items() if isinstance(v, bool | int | str)}

    return [
        (n.op, told(n.target), *(fx.node.map_aggregate(a, told) for a in (n.args, n.kwargs)), n.name, n.type,
         plain(n.meta))
        for n in graph.nodes
    ]  # fmt: skip


def unpacked(rows: list[tuple[Any, ...]]) -> fx.Graph:
    """The graph again, every name as it was."""
    graph, known = fx.Graph(), dict[str, fx.Node]()

    def found(value: Any) -> Any:
        if not isinstance(value, _Named):
            return value
        if not value.kind:
            return known[value.name]
        name, _, overload = value.kind.partition(".")
        return getattr(getattr(getattr(torch.ops, value.name), name), overload or "default")

    for op, target, args, kwargs, name, kind, meta in rows:
        own, named = (fx.node.map_aggregate(a, found) for a in (args, kwargs))
        known[name] = graph.create_node(op, found(target), own, named, name, kind)
        known[name].meta.update(meta)
    return graph
