"""Explicit tables of names, filled by hand and by entry points; specs such as ``noise:sigma=0.5,clip=3``."""

import ast
import difflib
import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from types import NoneType
from typing import Any, ClassVar, Generic, TypeVar, get_args

from splitveil.core.errors import InputError, UnknownNameError

T = TypeVar("T")
Value = bool | int | float | str | None


def nearest(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'decoder'?"`` or an empty string."""
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True, slots=True)
class Spec:
    """A name with keyword arguments, as written on the command line: ``NAME[:k=v,...]``.

    A value that is itself a spec with options stands in square brackets: ``repeat:attack=[decoder:epochs=6],k=8``.
    """

    name: str
    options: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Spec":
        """Read ``NAME[:k=v,...]``; values are Python literals or plain words."""
        name, _, rest = text.partition(":")
        options: dict[str, Value] = {}
        for item in filter(None, outside_brackets(rest, ",")):
            key, eq, value = item.partition("=")
            if not eq or not key.strip().isidentifier():
                raise InputError(
                    f"expected NAME[:k=v,...], got {item!r} in {text!r}; write for example noise:sigma=0.5"
                )
            options[key.strip()] = _literal(value.strip())
        return cls(name.strip(), options)

    @property
    def short(self) -> str:
        """``repeat of mle`` for an attack on what another one reads; any other as it is written."""
        inner = str(self.options.get("attack", "")).partition(":")[0]
        return f"{self.name} of {inner}" if inner else str(self)

    def __str__(self) -> str:
        return self.name + (":" + ",".join(f"{k}={_text(v)}" for k, v in self.options.items()) if self.options else "")


class Named:
    """Something with a name and options; ``repr`` is the spec that the registry rebuilds it from.

    Seeds and kept results hang on that text.
    """

    name: ClassVar[str]
    kept_as: ClassVar[Mapping[str, str]] = {}
    """Attributes of options that cannot be kept under their own name."""

    def options(self) -> dict[str, Value]:
        """The constructor's arguments that are kept under their names, if plain values or named things themselves."""
        kept = {k: getattr(self, self.kept_as.get(k, k), ...) for k in inspect.signature(type(self)).parameters}
        named = {k: repr(v) if isinstance(v, Named) else v for k, v in kept.items()}
        return {k: v for k, v in named.items() if isinstance(v, Value)}

    def __repr__(self) -> str:
        return str(Spec(self.name, self.options()))


def outside_brackets(text: str, mark: str) -> list[str]:
    """`text` cut at each `mark`, one letter, that stands in no square brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if letter == mark and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _text(value: Value) -> str:
    return f"[{value}]" if isinstance(value, str) and set(value) & set(",:=") else str(value)


def _literal(text: str) -> Value:
    if text.startswith("[") and text.endswith("]"):
        return text[1:-1]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text.lower(), text)
    return value if isinstance(value, bool | int | float | str | None) else text


def _not(value: Value, annotation: Any) -> str:
    """What an option annotated so should be instead of `value`; empty where it will do, or the annotation is no help.

    Text is what its own reader makes of it; only switches and numbers are judged here.
    """
    kinds = set(get_args(annotation) or (annotation,))
    if not kinds <= {bool, int, float, NoneType} or (value is None and NoneType in kinds):
        return ""
    if isinstance(value, bool):
        return "" if bool in kinds else "a number"
    if isinstance(value, int) and kinds & {int, float}:
        return ""
    if isinstance(value, float) and float in kinds and math.isfinite(value):
        return ""
    return "a finite number" if float in kinds else "a whole number" if int in kinds else "true or false"


class Registry(Generic[T]):
    """Names of one kind of thing. Entries are ``module:attribute`` strings, imported when asked for, or objects.

    A third party adds to it by an entry point in `group`, which is ``splitveil.<kind>s`` where none is given.
    """

    def __init__(self, kind: str, table: Mapping[str, str], group: str = "") -> None:
        self.kind = kind
        self.group = group or f"splitveil.{kind}s"
        self._table: dict[str, str] = dict(table)

    def names(self) -> list[str]:
        """All known names, own ones first, in table order."""
        return list(self._table) + sorted(set(self._plugins()) - set(self._table))

    def get(self, name: str) -> Callable[..., T]:
        """The class or factory behind `name`.

        Raises:
            UnknownNameError: no such name; the message gives the nearest.
        """
        target = self._table.get(name) or self._plugins().get(name)
        if target is None:
            raise UnknownNameError(
                f"unknown {self.kind} {name!r}.{nearest(name, self.names())} Known: {', '.join(self.names())}."
            )
        module, _, attribute = target.partition(":")
        found: Callable[..., T] = getattr(importlib.import_module(module), attribute)
        return found

    def about(self, name: str) -> str:
        """First line of the docstring behind `name`; empty where there is none, or no such name."""
        return (inspect.getdoc(self.get(name)) or "").partition("\n")[0] if name in self.names() else ""

    def build(self, spec: "Spec | str", **extra: Any) -> T:
        """Make the object that `spec` describes; `extra` arguments come from the caller, not the user.

        Raises:
            UnknownNameError: no such name.
            InputError: an option that this entry does not have, one of another kind than its annotation, or a missing
                one.
        """
        spec = Spec.parse(spec) if isinstance(spec, str) else spec
        factory = self.get(spec.name)
        parameters = inspect.signature(factory).parameters
        known = [p for p in parameters if p not in extra]
        for key in spec.options:
            if key not in known:
                raise InputError(
                    f"{self.kind} {spec.name!r} has no option {key!r}.{nearest(key, known)} "
                    f"Options: {', '.join(known) or 'none'}."
                )
            if wanted := _not(spec.options[key], parameters[key].annotation):
                usual = parameters[key].default
                example = "" if usual in (None, "", inspect.Parameter.empty) else f"; use {spec.name}:{key}={usual}"
                raise InputError(
                    f"{self.kind} {spec.name!r}: expected {key} to be {wanted}, got {spec.options[key]!r}{example}."
                )
        one = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        needed = [k for k in known if parameters[k].default is inspect.Parameter.empty and parameters[k].kind in one]
        if any(k not in spec.options for k in needed):
            raise InputError(
                f"{self.kind} {spec.name!r} needs {' and '.join(needed)}; write {spec.name}:"
                f"{','.join(f'{k}=...' for k in needed)}."
            )
        try:
            return factory(**spec.options, **extra)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.kind} {spec!s}: {error}") from error

    def describe(self) -> list[tuple[str, str]]:
        """Pairs of name and first docstring line; imports every entry, so only for ``splitveil list``."""
        return [(n, self.about(n).replace("``", "`")) for n in self.names()]

    def _plugins(self) -> dict[str, str]:
        return {e.name: e.value for e in entry_points(group=self.group)}
