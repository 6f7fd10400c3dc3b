"""A model's graph, by ``torch.fx`` where modules can stay whole and trainable, else by ``torch.export``.

Every node's ``meta`` says which modules' results it is: ``ends`` (computed there) and ``passes`` (handed through
unchanged). A module called again is ``path#2``.
"""

import operator
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from splitveil.lab.cut.assigning import assignable
from splitveil.lab.cut.attention import FORWARDS, opened
from splitveil.lab.wrappers import PARALLEL

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, *FORWARDS, *PARALLEL)
STOCHASTIC = {"DropPath", "StochasticDepth"}
OUT_OF_PLACE: Mapping[object, Callable[..., Any]] = {
    getattr(operator, f"i{name}"): getattr(operator, name)
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "lshift", "rshift")
} | {operator.iand: operator.and_, operator.ior: operator.or_, operator.ixor: operator.xor}


class Unclean(Exception):  # noqa: N818
    """One way of tracing does not fit the model; the text says why."""


class _Tracer(fx.Tracer):
    def __init__(self) -> None:
        super().__init__()
        self.proxy_buffer_attributes = True
        self.calls: Counter[str] = Counter()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Subclasses of torch's own layers (timm has many) stay whole too, so that they can still be trained.

        Blocks that only call other layers are followed: containers, transformers, what holds a part for many devices.
        """
        own = (c for c in type(m).__mro__ if c.__module__.startswith("torch.nn.") and c is not nn.Module)
        return type(m).__name__ in STOCHASTIC or any(not issubclass(c, CONTAINERS) for c in own)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        path = self.path_of_module(m)
        if isinstance(m, PARALLEL):
            forward = m.module.__call__
        out = super().call_module(m, opened(m) or forward, args, kwargs)
        if isinstance(out, fx.Proxy):
            given = {a.node for a in (*args, *kwargs.values()) if isinstance(a, fx.Proxy)}
            if out.node not in given:
                self.calls[path] += 1
            name = path if self.calls[path] <= 1 else f"{path}#{self.calls[path]}"
            out.node.meta.setdefault("passes" if out.node in given else "ends", []).append(name)
        return out


def symbolic(model: nn.Module) -> fx.GraphModule:
    """Trace `model` (eval mode, one argument) with fx; in-place operations become ordinary ones.

    Raises:
        Unclean: control flow or shapes that fx cannot follow.
    """
    inplace = {name: m for name, m in model.named_modules() if getattr(m, "inplace", False) is True}
    for m in inplace.values():
        m.inplace = False
    try:
        with assignable(model):
            graph = _Tracer().trace(model)
        module = fx.GraphModule(model, graph)
        _write_nothing_in_place(module, set(inplace))
    except Exception as error:  # tracing runs the user's code: anything can be raised
        for m in inplace.values():
            m.inplace = True
        raise Unclean(first_line(error) + _place(error)) from error
    return module


def exported(model: nn.Module, x: Tensor, *, functional: bool) -> fx.GraphModule:
    """Trace `model` (eval mode, one argument) with ``torch.export`` and a free batch axis. x: (2, C, H, W).

    In-place operators become ordinary ones: by name, or, `functional`, by torch's own rewriting, which also follows
    writes through views but takes layers apart.

    Raises:
        Unclean: the model cannot be exported.
    """
    try:
        batch = torch.export.Dim("batch", min=1)
        program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
        if functional:
            program = program.run_decompositions({})
        module: fx.GraphModule = program.module(check_guards=False)
        _write_nothing_in_place(module, set())
    except Exception as error:  # exporting runs the user's code: anything can be raised
        raise Unclean(complaint(error) + _place(error)) from error
    _find_ends(module.graph)
    return module


@contextmanager
def no_fast_path() -> Iterator[None]:
    """nn.MultiheadAttention without its fused inference kernel, whose last bits differ from the plain operations."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def function_name(node: fx.Node) -> str:
    """``relu`` for F.relu, Tensor.relu_, aten.relu.default alike."""
    target: Any = node.target
    if isinstance(target, torch._ops.OpOverload):
        target = target._schema.name.split("::")[1]
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return str(name).rpartition(".")[2].strip("_")


def _write_nothing_in_place(module: fx.GraphModule, inplace: set[str]) -> None:
    position = {n: i for i, n in enumerate(module.graph.nodes)}
    for node in module.graph.nodes:
        if (node.op == "call_module" and node.target in inplace) or _made_functional(node):
            overwritten = node.args[0] if node.args else node.kwargs["input"]
            overwritten.replace_all_uses_with(node, lambda user, after=position[node]: position[user] > after)
    module.graph.lint()
    module.recompile()


def _made_functional(node: fx.Node) -> bool:
    if node.op == "call_method":
        name = str(node.target)
        if name.endswith("_") and not name.endswith("__"):
            node.target = name[:-1]
            return True
    if node.op != "call_function" or not callable(node.target):
        return False
    if node.target in OUT_OF_PLACE:
        node.target = OUT_OF_PLACE[node.target]
        return True
    if isinstance(node.target, torch._ops.OpOverload):
        if not node.target._schema.is_mutable:
            return False
        packet = getattr(torch.ops.aten, node.target._schema.name.split("::")[1].removesuffix("_"))
        node.target = getattr(packet, node.target._overloadname)
        return True
    name = getattr(node.target, "__name__", "")
    if getattr(node.target, "__module__", "") == "_operator":  # and_, or_, not_ write nowhere
        return False
    if name.endswith("_") and not name.endswith("__"):
        found = getattr(torch, name[:-1], None) or getattr(nn.functional, name[:-1])
        node.target = found
        return True
    if node.kwargs.get("inplace") is True:
        node.kwargs = {**node.kwargs, "inplace": False}
        return True
    return False


def _find_ends(graph: fx.Graph) -> None:
    """A module ends at its last node, if nothing else of it is used outside."""
    inside: defaultdict[tuple[str, str], list[fx.Node]] = defaultdict(list)
    for node in graph.nodes:
        for key, (path, _) in node.meta.get("nn_module_stack", {}).items():
            if path:
                inside[key, path].append(node)
    calls: Counter[str] = Counter()
    for (_, path), nodes in inside.items():
        leaving = [n for n in nodes if any(user not in nodes for user in n.users)]
        calls[path] += 1
        if leaving == nodes[-1:]:
            name = path if calls[path] == 1 else f"{path}#{calls[path]}"
            nodes[-1].meta.setdefault("ends", []).insert(0, name)


def first_line(error: Exception) -> str:
    """What went wrong, without the rest of a long report."""
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:200].rstrip(".")


def complaint(error: Exception) -> str:
    """What torch's shape reasoning could not do, in words that say whose fault it is."""
    if isinstance(error, (GuardOnDataDependentSymNode, DynamicOutputShapeException)):
        return "what it computes depends on the values in the image"
    return first_line(error)


def _place(error: Exception) -> str:
    """`` (net.py:12)``: the last line of the model's own code that ran."""
    inside = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]), "<")
    lines = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(inside)]
    return f" ({Path(lines[-1].filename).name}:{lines[-1].lineno})" if lines else ""
