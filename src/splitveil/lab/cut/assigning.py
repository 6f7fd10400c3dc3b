"""Buffers that a model assigns anew when it runs, such as a counter, while ``torch.fx`` follows it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import fx, nn


@contextmanager
def assignable(model: nn.Module) -> Iterator[None]:
    """Let steps of a graph stand in for buffers of `model`; afterwards the buffers are what they were."""
    before = {m: type(m) for m in model.modules() if m._buffers and not type(m).__module__.startswith("torch.nn.")}
    for module, kind in before.items():
        base: Any = kind

        class Assignable(base):  # type: ignore[misc]
            def __setattr__(self, name: str, value: Any) -> None:
                if isinstance(value, fx.Proxy) and name in self._buffers:
                    self.__dict__[name] = value
                else:
                    super().__setattr__(name, value)

        Assignable.__name__, Assignable.__module__ = kind.__name__, kind.__module__
        module.__class__ = Assignable
    try:
        yield
    finally:
        for module, kind in before.items():
            module.__class__ = kind
            for name in module._buffers.keys() & vars(module).keys():
                del module.__dict__[name]
