"""Graphs without sizes: whatever is not a tensor becomes a constant, a multiple of the batch or the input's device.

What is left between steps is tensors only, so no size can cross a cut: each half reads the batch from its own input.
"""

import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from splitveil.lab.cut.capture import Unclean
from splitveil.lab.cut.costs import NodeRun

OWN = "read from the half's own input"
SMALL, LARGE = 2, 3


class _Writer:
    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.memo: dict[fx.Node, Any] = {}
        self.input: fx.Node | None = None
        self._made: dict[object, fx.Node] = {}

    def argument(self, value: Any) -> Any:
        """An argument of the old graph in terms of the new one."""
        return fx.node.map_aggregate(value, lambda a: self.memo[a] if isinstance(a, fx.Node) else self.literal(a, a))

    def literal(self, small: Any, large: Any) -> Any:
        """A value seen at the two batch sizes."""
        if isinstance(small, torch.device):
            return self._own("device", "call_function", getattr, (self.input, "device"))
        if isinstance(small, tuple | list) and type(small) is type(large) and len(small) == len(large):
            items = [self.literal(a, b) for a, b in zip(small, large, strict=True)]
            return items if isinstance(small, list) else tuple(items)
        if type(small) is type(large) and (small is large or small == large):
            return small
        if type(small) is int and type(large) is int:
            return self._affine(large - small, small - SMALL * (large - small))
        raise Unclean(f"a value that is {small!r} for {SMALL} images and {large!r} for {LARGE}")

    def _affine(self, scale: int, offset: int) -> fx.Node:
        batch = self._own("batch", "call_method", "size", (self.input, 0))
        scaled = batch if scale == 1 else self._once((scale,), operator.mul, (batch, scale))
        return scaled if offset == 0 else self._once((scale, offset), operator.add, (scaled, offset))

    def _own(self, key: str, op: str, target: Any, args: tuple[Any, ...]) -> fx.Node:
        if key not in self._made:
            if self.input is None:
                raise Unclean("a size is read before the input")
            with self.graph.inserting_after(self.input):
                self._made[key] = self.graph.create_node(op, target, args, name=key)
            self._made[key].meta[OWN] = True
        return self._made[key]

    def _once(self, key: object, target: Any, args: tuple[Any, ...]) -> fx.Node:
        if key not in self._made:
            self._made[key] = self.graph.call_function(target, args)
        return self._made[key]


def without_sizes(
    module: fx.GraphModule, small: dict[fx.Node, NodeRun], large: dict[fx.Node, NodeRun]
) -> tuple[fx.GraphModule, dict[fx.Node, fx.Node]]:
    """Rewrite `module` from what it does on two and on three images (`costs.steps`); also, new node -> old node.

    Checks that yield nothing (assertions on shapes) are dropped: the shapes are now fixed.

    Raises:
        Unclean: a number that does not grow linearly with the batch, or more than one input.
    """
    writer, origin = _Writer(), dict[fx.Node, fx.Node]()
    for node in module.graph.nodes:
        value = small[node].value
        if node.op == "placeholder":
            if writer.input is not None:
                raise Unclean("more than one input")
            new = writer.input = writer.graph.placeholder("x")
        elif node.op == "output":
            result = writer.argument(node.args[0])
            new = writer.graph.output(result[0] if isinstance(result, tuple | list) and len(result) == 1 else result)
        elif any(isinstance(leaf, Tensor) for leaf in tree_leaves(value)):
            args, kwargs = writer.argument(node.args), writer.argument(node.kwargs)
            new = writer.graph.create_node(node.op, node.target, args, kwargs, name=node.name)
        else:
            writer.memo[node] = writer.literal(value, large[node].value)
            continue
        new.meta = {key: tuple(node.meta.get(key, ())) for key in ("ends", "passes")} | new.meta
        writer.memo[node], origin[new] = new, node
    for node in reversed(writer.graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            writer.graph.erase_node(node)
    return fx.GraphModule(module, writer.graph), {new: origin[new] for new in writer.graph.nodes if new in origin}
