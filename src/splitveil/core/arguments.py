"""Arguments of the wrong kind get a sentence where they come in, instead of a traceback from deep inside."""

import functools
import inspect
import numbers
from collections.abc import Callable, Collection, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from splitveil.core.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")

NUMBERS: dict[Any, type] = {int: numbers.Integral, float: numbers.Real}
SOURCES = {
    "Module": "load_model(...).model is one",
    "Tensor": "torch.from_numpy(...) makes one of an array",
    "Dataset": "load_data(...) reads one",
    "Traced": "trace(model, example) makes one",
    "Split": "split(model, at, example) or halves(edge, cloud, example) makes one",
    "Subject": "Subject.of_model(...) or Subject.of_split(...) makes one",
    "Protected": "protect(...) or restore(bundle) gives one",
    "Bundle": "Bundle.load(folder) reads one",
}


INSTEAD = {
    "ExportedProgram": "give the Python module that it was made from",
    "Loaded": "give its .model",
    "Audit": "give its .card",
}


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Hold every call against the annotations: plain classes, unions, literals and sequences of these; no others.

    Raises:
        InputError: an argument of another kind; names function, argument, what was expected and what was given.
    """
    signature = inspect.signature(function)
    name = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            # Python's own words name the function and the argument that is missing or not known.
            return function(*args, **kwargs)
        for key, value in given.items():
            parameter = signature.parameters[key]
            single = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if single and not _fits(value, parameter.annotation):
                raise InputError(_sentence(name, key, parameter.annotation, value))
        return function(*args, **kwargs)

    return call


def _fits(value: object, kind: Any) -> bool:
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, k) for k in get_args(kind))
    if origin is Literal:
        return value in get_args(kind)
    if origin is Sequence or kind is Sequence:
        if not isinstance(value, Collection) or isinstance(value, str | bytes):
            return False
        return all(_fits(item, k) for k in get_args(kind)[:1] for item in value)
    if origin is Callable or kind is Callable:
        return callable(value)
    if kind is None or kind is NoneType:
        return value is None
    if kind in NUMBERS:
        return isinstance(value, NUMBERS[kind]) and not isinstance(value, bool)
    if isinstance(kind, type) and kind is not inspect.Parameter.empty:
        return isinstance(value, kind)
    return True


def _sentence(function: str, key: str, kind: Any, value: object) -> str:
    names = [_word(k) for k in (get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,))]
    if isinstance(value, type):
        given, remedy = f"the class {value.__name__}", f"make one: {value.__name__}(...)"
    else:
        given = f"{type(value).__name__} {value!r}" if isinstance(value, str | int | float) else type(value).__name__
        remedy = INSTEAD.get(type(value).__name__) or next((SOURCES[n] for n in names if n in SOURCES), "give that")
    given = "None" if value is None else given
    return f"{function}() expected {key} as {' or '.join(names)}, got {given}; {remedy}."


def _word(kind: Any) -> str:
    if kind is None or kind is NoneType:
        return "None"
    if get_origin(kind) is not None:
        return str(kind).replace("collections.abc.", "").replace("typing.", "")
    return str(getattr(kind, "__name__", kind))
