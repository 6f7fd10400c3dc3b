"""Models that answer with more than their logits: by name, in a row, as a record."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.probing.copies import plain

LISTED = 8


def entries(answer: object) -> dict[str, Any]:
    """What an answer holds, by key, field or place; empty for a tensor and for what cannot be looked into."""
    if isinstance(answer, Mapping):
        return {str(k): v for k, v in answer.items()}
    if isinstance(answer, tuple) and hasattr(answer, "_fields"):
        return dict(zip(answer._fields, answer, strict=True))
    if isinstance(answer, tuple | list):
        return {str(k): v for k, v in enumerate(answer)}
    if is_dataclass(answer):
        return {f.name: getattr(answer, f.name) for f in fields(answer)}
    return {} if isinstance(answer, Tensor) else dict(getattr(answer, "__dict__", {}))


def chosen(answer: object, key: str | int) -> Any:
    """The part of `answer` under `key`: a name, a place (from 0, or from the end below it), or several with dots.

    Raises:
        InputError: nothing is there; the message lists what there is.
    """
    found, name = entries(answer), str(key)
    if name in found:
        return found[name]
    if name.removeprefix("-").isdecimal() and -len(found) <= int(name) < len(found):
        return list(found.values())[int(name)]
    first, dot, rest = name.partition(".")
    if dot and first in found:
        return chosen(found[first], rest)
    remedy = "leave the choice of logits out" if isinstance(answer, Tensor) else "choose the logits from that"
    raise InputError(f"expected {name!r} in the model's answer, got {described(answer)}; {remedy}.")


def described(answer: object) -> str:
    """An answer in words, with the shapes of what it holds: ``dict with 'logits' (2, 10) and 'hidden' (2, 8)``."""
    if isinstance(answer, Tensor):
        return f"a tensor {tuple(answer.shape)}"
    found = [f"{name!r} {_short(value)}" for name, value in entries(answer).items()]
    shown = found[:LISTED] + ([f"{len(found) - LISTED} more"] if len(found) > LISTED else [])
    kind = type(answer).__name__
    if not shown:
        return kind
    return f"{kind} with {' and '.join(filter(None, [', '.join(shown[:-1]), shown[-1]]))}"


def answering(model: nn.Module, key: str | int) -> nn.Module:
    """Let `model` answer with that part alone, in place, without renaming any of its modules or weights."""
    model = plain(model)
    base = cast(Any, type(model))

    class Answering(base):  # type: ignore[misc, valid-type]
        def forward(self, x: Tensor) -> Any:
            return chosen(super().forward(x), key)

    Answering.__name__ = base.__name__
    model.__class__ = Answering
    return model


def _short(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
