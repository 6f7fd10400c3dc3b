"""`Accelerator`: where audits, trainings and plans compute, and what that device multiplies and holds."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar

import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

P = ParamSpec("P")
T = TypeVar("T")

VARIABLE, VISIBLE = "SPLITVEIL_ACCELERATOR", "CUDA_VISIBLE_DEVICES"
"""Of the environment: what ``auto`` stands for, and CUDA's own list of GPUs that a process may use."""
TYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
AMPERE, VOLTA = 8, 7
"""Compute capabilities from which on a GPU multiplies bf16, and fp16, faster than float32."""

_used: ContextVar["Accelerator | None"] = ContextVar("accelerator", default=None)


@dataclass(frozen=True, slots=True)
class Accelerator:
    """The processor or one GPU.

    Random numbers are drawn by generators on the processor wherever a seed decides them, and moved.

    Attributes:
        device: one only; several GPUs are used by workers, one each.
        name: as asked for, and as another process may ask: ``cuda`` for whichever GPU is its own.
    """

    device: torch.device
    name: str = ""

    @classmethod
    def chosen(cls, name: str = "auto") -> Self:
        """``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

        ``auto`` is what is in use (`used`), else what the environment's ``SPLITVEIL_ACCELERATOR`` names, else a GPU
        where there is one, else the processor.

        Raises:
            InputError: another word, or a device that is not here.
        """
        if name != "auto":
            return cls(_device(name), name)
        if (used := _used.get()) is not None:
            return cls(used.device, used.name)
        if (named := os.environ.get(VARIABLE, "auto")) != "auto":
            return cls(_device(named, f"{VARIABLE}="), named)
        apple = torch.backends.mps.is_available()
        found = "cuda" if torch.cuda.is_available() else "mps" if apple else "cpu"
        return cls(_device(found), found)

    @classmethod
    def of(cls, what: Tensor | nn.Module) -> Self:
        """Where a tensor lies, or a module's first parameter or buffer; one without any is on the processor."""
        if isinstance(what, Tensor):
            return cls(what.device)
        return cls(next((t.device for kind in (what.parameters, what.buffers) for t in kind()), torch.device("cpu")))

    @contextmanager
    def used(self, *modules: nn.Module | None) -> Iterator[Self]:
        """What ``auto`` stands for in this block; modules are on the device meanwhile, and then where they were."""
        before = _used.set(self)
        try:
            with ExitStack() as stack:
                for module in modules:
                    if module is not None and (was := Accelerator.of(module).device) != self.device:
                        module.to(self.device)
                        stack.callback(module.to, was)
                yield self
        finally:
            _used.reset(before)

    @property
    def gpus(self) -> int:
        """That workers can have one each: 0 for the processor, 1 for a GPU that was asked for by its number."""
        return torch.cuda.device_count() if self.name == "cuda" else int(self.device.type != "cpu")

    def environment(self, worker: int) -> dict[str, str]:
        """Of a process begun for work of this one: it computes on the same, of several GPUs on one of its own."""
        if self.name != "cuda":
            return {VARIABLE: self.name or str(self.device)}
        listed = [d.strip() for d in os.environ.get(VISIBLE, "").split(",") if d.strip()]
        known = listed or [str(k) for k in range(self.gpus)]
        return {VARIABLE: "cuda", VISIBLE: known[worker % len(known)]}

    @property
    def precision(self) -> str:
        """Fabric's word for trainings: bf16, or fp16 with scaled losses, where the device multiplies that faster."""
        if self.device.type == "cpu":
            return "bf16-mixed" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "32-true"
        if self.device.type != "cuda":
            return "32-true"
        capability = torch.cuda.get_device_capability(self.device)[0]
        return "bf16-mixed" if capability >= AMPERE else "16-mixed" if capability >= VOLTA else "32-true"

    @property
    def exact(self) -> torch.dtype:
        """The widest type it computes in: Apple's GPUs have no float64."""
        return torch.float32 if self.device.type == "mps" else torch.float64

    def with_doubles(self) -> Self:
        """Itself where it computes in float64, else the processor."""
        return self if self.exact == torch.float64 else type(self)(torch.device("cpu"), "cpu")

    @property
    def bf16(self) -> bool:
        """Whether it multiplies bf16 natively. Searches use that and never fp16, whose small slopes are zero."""
        return self.precision == "bf16-mixed"

    def autocast(self, precision: str = "bf16-mixed", *, enabled: bool = True) -> torch.autocast:
        """What trained with this precision computes in; nothing changes for ``32-true``, or where not enabled."""
        mixed = TYPES.get(precision)
        return torch.autocast(self.device.type, mixed or torch.bfloat16, enabled=enabled and mixed is not None)

    @property
    def memory(self) -> int:
        """Bytes that the device has in all."""
        if self.device.type == "cuda":
            return int(torch.cuda.get_device_properties(self.device).total_memory)
        if self.device.type == "mps":
            return int(torch.mps.recommended_max_memory())
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    @property
    def words(self) -> str:
        """What it is called in records; nothing for the processor, which they name anyway."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return "" if self.device.type == "cpu" else "Apple GPU" if self.device.type == "mps" else str(self.device)

    def fabric(self, precision: str) -> "Fabric":
        """A Fabric of this device alone."""
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.single_device import SingleDeviceStrategy

        kind, index = self.device.type, self.device.index or 0
        if kind in ("cpu", "cuda", "mps"):
            return Fabric(accelerator=kind, devices=[index] if kind == "cuda" else 1, precision=precision)  # type: ignore[arg-type]
        return Fabric(accelerator="cpu", strategy=SingleDeviceStrategy(device=self.device), precision=precision)  # type: ignore[arg-type]


def computing(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, with what its keyword ``accelerator`` asks for in use.

    Raises:
        InputError: another word, or a device that is not here.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with Accelerator.chosen(str(kwargs.get("accelerator", "auto"))).used():
            return function(*args, **kwargs)

    return call


def _device(name: str, flag: str = "--accelerator ") -> torch.device:
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        known = "auto, cpu, cuda, cuda:1 or mps"
        raise InputError(f"expected {known} for {flag.strip(' =')}, got {name!r}; use {flag}auto.")
    kind, _, index = name.partition(":")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"expected an Apple GPU for {flag}mps, got none here; use {flag}auto.")
    if kind == "cuda":
        count, built = torch.cuda.device_count(), torch.backends.cuda.is_built()
        if not count:
            why = "none here" if built else f"torch {torch.__version__}, which is built without CUDA"
            raise InputError(f"expected a GPU for {flag}{name}, got {why}; use {flag}auto, or install torch for CUDA.")
        if int(index or 0) >= count:
            known = ", ".join(f"cuda:{k}" for k in range(count))
            raise InputError(f"expected one of {known} for {flag}{name}, got no such GPU here; use {flag}cuda:0.")
        return torch.device("cuda", int(index or 0))
    return torch.device(kind)
