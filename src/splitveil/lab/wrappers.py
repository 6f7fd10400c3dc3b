"""Modules that only hold the model: a compiled or parallel one, an averaged one, a user's own. The model is inside."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn

from splitveil.core.errors import CutError

HOLDERS = ("_orig_mod", "module")
"""Under these names torch, timm and their users hold the model that they wrap."""
PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
FORGET = "give the Python module that it was made from"


class _Stub(nn.Module):
    """Stands in for the model: notes what it is given, answers with something that nobody can compute with."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Any] = []
        self.answer = object()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.given.append((args, kwargs))
        return self.answer


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside of all that merely holds it; the same object where there is no wrapper.

    A wrapper is known by what it does, in eval mode and in training: hand its one input to the module that it holds as
    ``module`` or ``_orig_mod`` and hand back what that answers, both untouched. torch's compiled and parallel modules
    do more on the way but nothing to the numbers, and are known by their type.

    Raises:
        CutError: a scripted or exported program, which has no Python modules to cut between.
    """
    while isinstance(model, nn.Module):
        _refuse_program(model)
        inner = next((m for m in map(model._modules.get, HOLDERS) if m is not None), None)
        hooked = model._forward_hooks or model._forward_pre_hooks
        if inner is None or hooked or not (_is_known(model) or _only_forwards(model, inner)):
            return model
        model = inner
    raise CutError(f"expected a torch.nn.Module, got {type(model).__name__}; {FORGET}.")


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Whatever ``torch.compile`` has wrapped, modules and functions, runs as the Python that it was made from."""
    if "torch._dynamo" not in sys.modules:  # nobody compiled anything, and importing it takes seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _is_known(model: nn.Module) -> bool:
    return isinstance(model, PARALLEL) or type(model).__name__ == "OptimizedModule"


def _only_forwards(model: nn.Module, inner: nn.Module) -> bool:
    name = next(n for n, m in model._modules.items() if m is inner)
    training, image = model.training, object()
    try:
        for mode in (False, True):
            stub = _Stub()
            model._modules[name], model.training = stub, mode
            answer = model.forward(image)
            if answer is not stub.answer or stub.given != [((image,), {})]:
                return False
    except Exception:  # the user's code, given what is no tensor: it does something with it, so it is no mere holder
        return False
    finally:
        model._modules[name], model.training = inner, training
    return True


def _refuse_program(model: nn.Module) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise CutError(
            f"expected a Python module, got {type(model).__name__} of torch.jit, whose layers have no Python to "
            f"follow; {FORGET}."
        )
    if isinstance(model, fx.GraphModule) and any(c.__module__.startswith("torch.export.") for c in type(model).__mro__):
        raise CutError(f"expected a Python module, got the module of an exported program; {FORGET}.")
