"""Copies of a model to try things on, so that what it counts or remembers reaches nobody else."""

import copy
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from splitveil.core.errors import InputError


def copied(model: nn.Module) -> nn.Module:
    """A deep copy; results that the model keeps between calls are copied without their history.

    Raises:
        InputError: it holds something that cannot be copied.
    """
    return _copy(model, {})


def sheltered(model: nn.Module) -> nn.Module:
    """A copy with the same parameters and with buffers and everything else of its own: to run, not to change.

    Raises:
        InputError: it holds something that cannot be copied.
    """
    return _copy(model, {id(p): p for p in model.parameters()})


def plain(model: nn.Module) -> nn.Module:
    """A graph of ``torch.fx`` as an ordinary module with the same parts, which can be given another class; else itself.

    Graph modules make a class of their own whenever they are copied.
    """
    if not isinstance(model, fx.GraphModule):
        return model
    run: Any = type(model).forward

    class Generated(nn.Module):
        forward = run

    made = Generated()
    made.__dict__.update({k: v for k, v in vars(model).items() if k != "_graph"})
    return made


def materialized(model: nn.Module, x: Tensor) -> None:
    """Let lazy layers take their shapes from x: (N, C, H, W); nothing where there are none or it does not run."""
    if any(is_lazy(p) for p in chain(model.parameters(), model.buffers())):
        with torch.no_grad(), suppress(Exception):  # whoever runs the model next says what is wrong
            model(x)


def held(model: nn.Module, ran: nn.Module) -> None:
    """Keep parts that train although the model is in eval mode so: later calls of ``eval()`` pass them by.

    A dropout that its owner switches on again is part of what the model computes; its halves must not lose it.
    ran: a copy that was in eval mode when it was called.
    """
    for module, used in zip(model.modules(), ran.modules(), strict=True):
        if module.training or used.training:
            module.training = True
            base: Any = type(module)

            class Held(base):  # type: ignore[misc]
                def train(self, mode: bool = True) -> Any:
                    return self

            Held.__name__ = base.__name__
            module.__class__ = Held


def _copy(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    for module in model.modules():
        for tensor in _tensors(vars(module)):
            if not tensor.is_leaf and id(tensor) not in memo:
                memo[id(tensor)] = tensor.detach().clone()
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # copying runs the user's code: anything can be raised
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"the model cannot be copied ({why}); let it make what cannot be copied when it runs, and not keep it."
        ) from error


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _tensors(item)
