"""`Parcel`: a value on its way to workers, large tensors beside the rest, so that they can be mapped and not copied."""

import io
import math
import mmap
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cloudpickle
import numpy as np
import torch
from torch import Tensor

LARGE = 2**16
"""Bytes from which a tensor goes beside the rest."""
ALIGNED = 64
"""Bytes to which each begins, as torch's own memory does: where numbers lie must not tell in results."""
HEAD = struct.Struct("<Q")


def packed(value: object) -> bytes:
    """In one piece. What it raises depends on the value: other people's classes may refuse to be pickled."""
    file = io.BytesIO()
    _Pickler(file, math.inf).dump(value)
    return file.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Takes large dense tensors without history out of what it writes, and keeps the strides of arrays.

    The step of a dimension with one entry means nothing, but torch looks at it when it chooses how to compute.
    """

    def __init__(self, file: io.BytesIO, large: float = LARGE) -> None:
        super().__init__(file, protocol=5)
        self.large, self.beside = large, list[np.ndarray[Any, Any]]()

    def reducer_override(self, value: Any) -> Any:
        if type(value) is np.ndarray and value.dtype.kind in "biuf" and value.size and value.dtype.isnative:
            plain = value.strides == np.empty_like(value, order="C", subok=False, shape=value.shape).strides
            if min(value.strides, default=0) >= 0 and (not plain or value.nbytes >= self.large):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # nobody writes into what is shared
                    return _as_array, (torch.from_numpy(value),)
        if type(value) is Tensor and _dense(value) and value.nbytes >= self.large:
            flat = value.as_strided((value.numel(),), (1,), value.storage_offset())
            self.beside.append(flat.numpy())
            return _Beside(len(self.beside) - 1), (tuple(value.shape), value.stride())
        return super().reducer_override(value)


def _as_array(value: Tensor) -> "np.ndarray[Any, Any]":
    return value.numpy()


class _Beside:
    """Puts a tensor together again; called while unpickling."""

    opened: "Sequence[np.ndarray[Any, Any]]" = ()

    def __init__(self, place: int) -> None:
        self.place = place

    def __call__(self, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nobody writes into what is shared
            return torch.from_numpy(_Beside.opened[self.place]).as_strided(shape, stride)

    def __reduce__(self) -> Any:
        return _Beside, (self.place,)


@dataclass(frozen=True, slots=True)
class Parcel:
    """A pickled value and the large arrays in it."""

    rest: bytes
    beside: tuple["np.ndarray[Any, Any]", ...]

    @classmethod
    def of(cls, value: object) -> Self:
        """Pack it. What it raises depends on the value: other people's classes may refuse to be pickled."""
        file = io.BytesIO()
        pickler = _Pickler(file)
        pickler.dump(value)
        return cls(file.getvalue(), tuple(pickler.beside))

    def opened(self) -> Any:
        """The value, its large tensors in the memory of `beside`."""
        _Beside.opened = self.beside
        try:
            return cloudpickle.loads(self.rest)
        finally:
            _Beside.opened = ()

    def write(self, path: Path) -> None:
        """Into a file that `read` maps."""
        with path.open("wb") as out:
            heads = cloudpickle.dumps([(a.dtype.str, len(a)) for a in self.beside])
            for part in (heads, self.rest):
                out.write(HEAD.pack(len(part)))
                out.write(part)
            for array in self.beside:
                out.write(b"\0" * (-out.tell() % ALIGNED))
                out.write(array.view(np.uint8).data)

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file, whose pages are in memory once, however many processes read them."""
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        parts, at = list[bytes](), 0
        for _ in range(2):
            (size,) = HEAD.unpack_from(content, at)
            at += HEAD.size
            parts.append(content[at : at + size])
            at += size
        arrays = list[np.ndarray[Any, Any]]()
        for kind, count in cloudpickle.loads(parts[0]):
            at += -at % ALIGNED
            arrays.append(np.frombuffer(content, np.dtype(kind), count, at))
            at += arrays[-1].nbytes
        return cls(parts[1], tuple(arrays))


def _dense(value: Tensor) -> bool:
    """In one piece of the CPU's memory, and of a kind that NumPy knows."""
    if value.device.type != "cpu" or value.layout != torch.strided or value.requires_grad or value.is_conj():
        return False
    if value.dtype in (torch.bfloat16, torch.complex32) or value.is_quantized:
        return False
    return value.is_contiguous() or (value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last))
