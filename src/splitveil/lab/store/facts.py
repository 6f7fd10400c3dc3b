"""`Facts`: everything that decides one result, hashed whole, the code that makes it included."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from types import BuiltinFunctionType, BuiltinMethodType, FunctionType, MethodType
from typing import ClassVar
from uuid import uuid4

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from splitveil.core.registry import Named
from splitveil.lab.seeds import digest, named
from splitveil.lab.store.code import code_of, compiled

PLAIN = bool | int | float | complex | str | bytes | None
VERSIONS = f"torch {torch.__version__} numpy {np.__version__}"
"""Decide the last bits of every result. Processor and threads do too and are no facts: see `Store`."""


TORCHS_OWN = frozenset({*vars(nn.Module()), "_compiled_call_impl", "_is_full_backward_hook", "__constants__"})
"""What torch keeps in every module: weights, buffers and parts are told by content, hooks and modes decide nothing."""


class Facts:
    """What decides one result. Subclasses are frozen dataclasses without slots, whose fields are the things.

    Every field is hashed whole: images and weights by content, a model with its structure, any other object by its
    words and all its attributes, or by its own ``facts`` where it has such; nothing is picked by hand. The code of all
    these objects belongs to the facts, and that of the modules in `made_by`, with all that they import; no other code
    does. What cannot be looked into is taken to differ each time: its result is made anew, never mistaken.
    """

    made_by: ClassVar[tuple[str, ...]] = ()
    """Names of the modules that make and score the result."""

    @property
    def label(self) -> str:
        """What a reader knows it by."""
        return type(self).__name__

    @cached_property
    def digest(self) -> str:
        """The same for equal facts, in every process and on every machine."""
        telling = _Telling()
        telling.add(f"{type(self).__qualname__} {VERSIONS}")
        for field in fields(self):  # type: ignore[arg-type]
            telling.add(field.name)
            telling.add(getattr(self, field.name))
        telling.add(code_of(*self.made_by, *telling.kinds))
        return telling.total.hexdigest()

    @cached_property
    def name(self) -> str:
        """As a file is called: readable, and another one for other facts."""
        return named(self.label, self.digest)


class _Telling:
    """A hash that grows by values of any kind, and the classes and functions met in them."""

    def __init__(self) -> None:
        self.total = blake2b(digest_size=16)
        self.kinds: set[type | FunctionType] = set()
        self._inside: list[int] = []

    def add(self, value: object) -> None:
        if isinstance(value, Facts):
            self._words("facts", value.digest)
        elif isinstance(value, PLAIN):
            self._words(type(value).__name__, repr(value))
        elif isinstance(value, Path):
            self._words("path", f"{value} {blake2b(value.read_bytes()).hexdigest() if value.is_file() else ''}")
        elif isinstance(value, np.generic):
            self.add(value.item())
        elif isinstance(value, Enum):
            self._words(type(value).__qualname__, repr(value.value))
        elif isinstance(value, np.ndarray):
            self._words("array", digest(value))
        elif isinstance(value, Tensor):
            self._words("tensor", _content(value))
        elif isinstance(value, torch.dtype | torch.device | np.dtype):
            self._words("kind", str(value))
        elif isinstance(value, type):
            self.kinds.add(value)
            self._words("type", f"{value.__module__}.{value.__qualname__}")
        elif isinstance(value, BaseModel):
            self._words(type(value).__qualname__, value.model_dump_json())
        elif id(value) in self._inside:
            self._words("again", str(len(self._inside) - self._inside.index(id(value))))
        else:
            self._inside.append(id(value))
            self._add_made(value)
            self._inside.pop()

    def _add_made(self, value: object) -> None:
        """Of parts."""
        if isinstance(value, nn.Module):
            self._add_module(value)
        elif isinstance(value, Mapping):
            self._words("mapping", str(len(value)))
            for key in sorted(value, key=repr):
                self.add(key)
                self.add(value[key])
        elif isinstance(value, Set):
            self._words("set", " ".join(sorted(self._alone(v) for v in value)))
        elif isinstance(value, Sequence):
            self._words("sequence", str(len(value)))
            for part in value:
                self.add(part)
        elif isinstance(value, partial):
            self.add((value.func, value.args, value.keywords))
        elif isinstance(value, MethodType):
            self.add((value.__func__, value.__self__))
        elif isinstance(value, BuiltinFunctionType | BuiltinMethodType):
            self._words("builtin", f"{value.__module__}.{value.__qualname__}")
        elif isinstance(value, FunctionType):
            self.kinds.add(value)
            self._words("function", f"{value.__module__}.{value.__qualname__} {compiled(value)}")
            self.add((value.__defaults__, value.__kwdefaults__, [c.cell_contents for c in value.__closure__ or ()]))
        else:
            self._add_object(value)

    def _add_module(self, module: nn.Module) -> None:
        """Words, structure, every weight and buffer, and whatever else each part holds: a number, a function."""
        self.kinds |= {type(m) for m in module.modules()}
        self._words("module", str(module))
        for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()], key=lambda pair: pair[0]):
            self._words(name, _content(tensor))
        for name, part in module.named_modules():
            if isinstance(part, fx.GraphModule | Named):
                continue  # its words are its code, or what it is built anew from
            held = {k: v for k, v in vars(part).items() if k not in TORCHS_OWN}
            if held:
                self._words("part", name)
                self.add(held)

    def _add_object(self, value: object) -> None:
        kind = type(value)
        self.kinds.add(kind)
        self._words("object", f"{kind.__module__}.{kind.__qualname__}")
        if (own := getattr(value, "facts", None)) is not None and not callable(own):
            self.add(own)
        elif is_dataclass(value):
            for field in fields(value):
                self.add((field.name, getattr(value, field.name)))
        elif hasattr(value, "__dict__"):
            self._words("words", "" if kind.__repr__ is object.__repr__ else repr(value))
            self.add(vars(value))
        else:
            self._words("unknown", uuid4().hex)

    def _alone(self, value: object) -> str:
        other = _Telling()
        other.add(value)
        self.kinds |= other.kinds
        return other.total.hexdigest()

    def _words(self, kind: str, text: str) -> None:
        self.total.update(f"{kind}\0{len(text)}\0{text}\0".encode())


def _content(tensor: Tensor) -> str:
    """Of any type, also those that numpy does not have. Where its values are not at hand it differs each time."""
    tensor = tensor.detach()
    if tensor.is_sparse or tensor.is_quantized or tensor.device.type == "meta" or is_lazy(tensor):
        return uuid4().hex
    tensor = tensor.cpu().contiguous()
    if tensor.dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        return f"{tensor.dtype} {digest(tensor.view(torch.uint8).numpy())}"
    return digest(tensor.numpy())
