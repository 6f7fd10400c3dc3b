"""A model's run, step by step: every function that makes a tensor, named as people would find it in their code."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

WRITES = {"__setitem__", "copy_"}


@dataclass(frozen=True, slots=True)
class Step:
    """One step: ``'mean' in 'block1', after 'block1.conv'``; what it was given and what it made."""

    words: str
    given: tuple[Tensor, ...]
    made: tuple[Tensor, ...]


class _Walk(TorchFunctionMode):
    def __init__(self, module: nn.Module, seen: Callable[[Step], None]) -> None:
        super().__init__()
        self.seen = seen
        self.open: list[tuple[str, nn.Module]] = [("", module)]
        self.ended = ""
        self.looking = False
        """Hooks run within this mode: what a look at a module's result computes is no step."""
        self.handles = [
            handle
            for path, part in module.named_modules()
            if path
            for handle in (
                part.register_forward_pre_hook(lambda m, _, path=path: self.open.append((path, m))),
                part.register_forward_hook(self._close),
            )
        ]

    def _close(self, _: nn.Module, given: Any, made: Any) -> None:
        path, module = self.open.pop()
        self.ended = path
        self.looking = True
        self.seen(Step(_named(path, module), _flat(given), _flat(made)))
        self.looking = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if self.looking:
            return made
        name = getattr(func, "__name__", str(func))
        written = _flat(args[:1]) if name in WRITES else ()
        if tensors := _flat(made) or written:
            self.seen(Step(self._words(func, name), _flat((args, kwargs)), tensors))
        return made

    def _words(self, func: Any, name: str) -> str:
        path, module = self.open[-1]
        if path and _is_layer(module):
            return _named(path, module)
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", name)
        inside = f" in {path!r}" if path else ""
        after = f"{',' if inside else ''} after {self.ended!r}" if self.ended else ""
        return f"{name.strip('_')!r}{inside}{after}"


def walk(module: nn.Module, inputs: tuple[Tensor, ...], seen: Callable[[Step], None]) -> Any:
    """Run `module` and show `seen` every step; the answer. Modules are shown once more when they end."""
    steps = _Walk(module, seen)
    try:
        with torch.no_grad(), steps:
            return module(*inputs)
    finally:
        for handle in steps.handles:
            handle.remove()


def _is_layer(module: nn.Module) -> bool:
    """One of torch's own layers, or a subclass without parts of its own: its name says enough."""
    own = any(c.__module__.startswith("torch.nn.modules.") and c is not nn.Module for c in type(module).__mro__)
    return own and (_kind(module).__module__.startswith("torch.nn.") or not any(module.children()))


def _kind(module: nn.Module) -> type:
    """The class as people know it: our own only add something to it."""
    return next(c for c in type(module).__mro__ if not c.__module__.startswith("splitveil."))


def _named(path: str, module: nn.Module) -> str:
    return f"{path!r} ({_kind(module).__name__})"


def _flat(value: Iterable[Any] | Any) -> tuple[Tensor, ...]:
    return tuple(t for t in tree_leaves(value) if isinstance(t, Tensor))
