"""A pretended accelerator: its tensors are computed on the processor and carry the label ``pretend:0``.

It is PyTorch's PrivateUse1 device with a tensor subclass for its data, so that modules, autograd, optimisers, Fabric
and ``.to("pretend")`` take it for a device as any other. As on a GPU it is an error to mix its tensors with the
processor's (but for numbers of no dimension and for positions), to draw on it by a generator of the processor, or to
read its values as NumPy without a copy. Autocast does nothing on it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

NAME = "pretend"
POSITIONS = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
"""Operations that take positions from the processor, also on a GPU."""
ACROSS = {"aten::copy_", "aten::_to_copy", "aten::set_"}


TOGETHER = {"aten::cat", "aten::stack"}
"""Operations for which a number of no dimension is a tensor like others."""


class MixedError(RuntimeError):
    """Tensors of two devices in one operation."""


class _Device(backend_registration._DummyBackendModule):
    """What torch asks of the module of a device. there: while somebody pretends; else no test of others meets it."""

    there = False

    def is_available(self) -> bool:
        return self.there

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def _begin() -> Any:
    """Once a process: there is no way back."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Device())
    library = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    library.fallback(torch.library.fallthrough_kernel)
    return library


_library = _begin()
DEVICE = torch.device(NAME, 0)
_apple = ContextVar("apple", default=False)


class Pretended(Tensor):
    """A tensor of the pretended device. own: what it holds, on the processor."""

    own: Tensor

    @staticmethod
    def __new__(cls, own: Tensor) -> "Pretended":
        sizes: dict[str, Any] = {} if own.layout != torch.strided else {
            "strides": own.stride(), "storage_offset": own.storage_offset()
        }  # fmt: skip
        made: Pretended = Tensor._make_wrapper_subclass(
            cls, own.shape, dtype=own.dtype, layout=own.layout, device=DEVICE, **sizes
        )
        made.own = own
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Pretended({self.own})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _computed(func, args, kwargs or {})


class _Watching(TorchDispatchMode):
    """Sees every operation, also those that make something of nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Making(TorchFunctionMode):
    """What asks no mode of operations: tensors and positions made of lists, on the processor first, and `tolist`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and torch.device(options.get("device") or "cpu").type == NAME:
            del options["device"]
            return func(*args, **options).to(DEVICE)
        if func is Tensor.new_tensor and isinstance(args[0], Pretended):
            return torch.tensor(args[1], dtype=options.get("dtype", args[0].dtype)).to(DEVICE)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[1], list):
            return func(args[0], torch.tensor(args[1]), *args[2:])
        if func is Tensor.tolist and isinstance(args[0], Pretended):
            return args[0].own.tolist()
        return func(*args, **options)


class _Inference(torch.set_grad_enabled):
    """Instead of inference mode: parts of an inference tensor of a subclass cannot be made."""

    def __init__(self, mode: bool = True) -> None:
        super().__init__(torch.is_grad_enabled() and not mode)


def _jvp(function: Any, given: tuple[Tensor], along: tuple[Tensor]) -> tuple[Tensor, Tensor]:
    """Instead of `torch.func.jvp`, which ends the process for tensors of a subclass: the derivative of the gradient."""
    with torch.enable_grad():
        x = given[0].detach().requires_grad_(True)
        z = function(x)
        weight = torch.zeros_like(z, requires_grad=True)
        (slope,) = torch.autograd.grad(z, x, weight, create_graph=True)
        (found,) = torch.autograd.grad(slope, weight, along[0])
    return z.detach(), found


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    flat, spec = tree_flatten((args, kwargs))
    wanted = next((a for a in flat if isinstance(a, torch.device)), None)
    there = any(isinstance(a, Pretended) for a in flat)
    if not there and (wanted is None or wanted.type != NAME):
        return func(*args, **kwargs)
    made_there = there if wanted is None else wanted.type == NAME
    _refuse(func, flat, there=there, made_there=made_there)
    inner = [
        a.own if isinstance(a, Pretended) else torch.device("cpu") if isinstance(a, torch.device) else a for a in flat
    ]
    own_args, own_kwargs = tree_unflatten(inner, spec)
    out = func(*own_args, **own_kwargs)
    written = {i for i, r in enumerate(func._schema.returns) if r.alias_info is not None and r.alias_info.is_write}
    if written:
        # In place: what was given is what comes back.
        given = {id(a.own): a for a in flat if isinstance(a, Pretended)}
        return tree_map(lambda t: given.get(id(t), t), out)
    if not made_there:
        return out
    if _apple.get() and any(isinstance(t, Tensor) and t.dtype == torch.float64 for t in tree_flatten(out)[0]):
        raise MixedError(f"{func._schema.name}: float64 on a device that has none")
    return tree_map(lambda t: Pretended(t) if isinstance(t, Tensor) and not isinstance(t, Pretended) else t, out)


def _refuse(func: Any, flat: list[Any], *, there: bool, made_there: bool) -> None:
    name = func._schema.name
    foreign = [a for a in flat if isinstance(a, Tensor) and not isinstance(a, Pretended)]
    strangers = [a for a in foreign if a.ndim or name in TOGETHER]
    if name in POSITIONS:
        strangers = [a for a in strangers if a.dtype not in (torch.int64, torch.int32, torch.bool, torch.uint8)]
        if flat and not isinstance(flat[0], Pretended):
            raise MixedError(f"{name}: positions of {DEVICE} for a tensor of the processor")
    if there and strangers and name not in ACROSS:
        raise MixedError(f"{name}: tensors of {DEVICE} and of the processor, {[tuple(s.shape) for s in strangers]}")
    drawn = [a for a in flat if isinstance(a, torch.Generator)]
    if drawn and made_there:
        raise MixedError(f"{name}: a generator of the processor draws on {DEVICE}")


@contextmanager
def pretending(*, apple: bool = False) -> Iterator[torch.device]:
    """The device, there in this block. apple: as Apple's GPUs it has no float64."""
    before = _apple.set(apple)
    modes = (
        patch("torch.inference_mode", _Inference),
        patch("torch.func.jvp", _jvp),
        patch.object(_Device, "there", True),
    )
    with modes[0], modes[1], modes[2], _Making(), _Watching():  # type: ignore[no-untyped-call]
        yield DEVICE
    _apple.reset(before)
