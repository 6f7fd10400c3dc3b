"""NumPy's files (``.npy``, ``.npz``) from strangers: what they state is held against what they hold before it is read.

A header of 80 bytes may state any shape, and NumPy then asks the system for as much; an archive of a few megabytes may
unpack to as many gigabytes. No pickles.
"""

import math
import zipfile
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from splitveil.core.errors import DataError
from splitveil.core.printing import phrase

MAGIC, ZIP = b"\x93NUMPY", (b"PK\x03\x04", b"PK\x05\x06")
"""How an array begins, and an archive; NumPy takes all else for pickles, and says how to run them."""
MOST_ARRAYS = 1000
"""In one archive."""
BOMB_BYTES, BOMB_RATIO = 256 << 20, 100
"""What unpacks to more than this, and to so many times what it takes packed, is refused: images do not."""
AT_ONCE = 1 << 22
HEADER = 1 << 16
"""Bytes of an array's header at most."""


def read_array(path: Path) -> NDArray[Any]:
    """The array of an ``.npy`` file.

    Raises:
        DataError: missing, unreadable, an archive or Python objects, or it holds less than it states.
    """
    with _sentences(path, "a plain .npy array", "write it with numpy.save"), path.open("rb") as file:
        if not path.is_file():
            raise ValueError("it is no file")
        return _array(file, path.stat().st_size)


class Archive:
    """An ``.npz`` file; ``with Archive(path) as held: held.read(name)``.

    Raises:
        DataError: missing, unreadable, no archive, or too many arrays in it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._sentences():
            if not path.is_file():
                raise FileNotFoundError if not path.exists() else ValueError("it is no file")
            with path.open("rb") as file:
                begin = file.read(len(MAGIC))
            if begin == MAGIC:
                raise DataError(f"{path} holds a single array; save an archive with numpy.savez.")
            if begin[:4] not in ZIP:
                raise ValueError("it begins otherwise" if begin else "it is empty")
            self._zip = zipfile.ZipFile(path)
            if len(self._zip.infolist()) > MOST_ARRAYS:
                raise ValueError(f"it holds more than {MOST_ARRAYS:,} arrays")

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    @property
    def names(self) -> list[str]:
        """Of the arrays in it."""
        return [name.removesuffix(".npy") for name in self._zip.namelist()]

    def kind(self, name: str) -> str:
        """NumPy's letter of an array's type: ``u``, ``f``, ``O`` of Python objects, ...

        Raises:
            DataError: damaged.
        """
        with self._sentences(), self._opened(name) as (file, _):
            return _header(file)[2].kind

    def read(self, name: str) -> NDArray[Any]:
        """One of them.

        Raises:
            DataError: damaged, Python objects, or it holds less than it states, or far more than a packed image would.
        """
        with self._sentences(), self._opened(name) as (file, size):
            return _array(file, size)

    def _opened(self, name: str) -> "_Member":
        return _Member(self._zip, f"{name}.npy" if f"{name}.npy" in self._zip.namelist() else name)

    def _sentences(self) -> "_sentences":
        return _sentences(self._path, "a whole NumPy archive of plain arrays", "write it anew")


class _Member:
    """One file of an archive, and the bytes that it unpacks to."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._info = info = archive.getinfo(name)
        if info.file_size > BOMB_BYTES and info.file_size > BOMB_RATIO * info.compress_size:
            raise ValueError(
                f"{phrase(name, 40)} unpacks to {info.file_size:,} bytes from {info.compress_size:,}, which no "
                "images do: save it unpacked, with numpy.savez"
            )
        self._file = archive.open(info)

    def __enter__(self) -> tuple[IO[bytes], int]:
        return self._file, self._info.file_size

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _sentences:  # noqa: N801  # reads as the function it would be, were it not for its return type
    """Whatever goes wrong inside is a `DataError` of one sentence: zipfile and NumPy raise some ten kinds."""

    def __init__(self, path: Path, what: str, remedy: str) -> None:
        self._path, self._what, self._remedy = path, what, remedy

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, DataError) or not isinstance(error, Exception):
            return
        if isinstance(error, FileNotFoundError):
            raise DataError(f"cannot read {self._path}: no such file; check the path.") from None
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"cannot read {self._path}: {error.strerror}; check the path.") from None
        why = phrase(str(error).partition("\n")[0].rstrip(".")) or type(error).__name__
        if isinstance(error, MemoryError):
            why = "more than the memory of this machine"
        raise DataError(f"{self._path} is not {self._what} ({why}); {self._remedy}.") from None


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, column order and type that an array states."""
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file, max_header_size=HEADER)
    if version == (2, 0):
        return npy.read_array_header_2_0(file, max_header_size=HEADER)
    raise ValueError(f"version {version} of the format")


def _array(file: IO[bytes], size: int) -> NDArray[Any]:
    """The array in `file`, which holds `size` bytes."""
    counted = _Counting(file)
    shape, columns, dtype = _header(cast(IO[bytes], counted))
    if dtype.hasobject:
        raise ValueError("Object arrays are Python, which is never run")
    stated, held = math.prod(shape) * dtype.itemsize, size - counted.read_bytes
    if any(length < 0 for length in shape) or stated > held:
        raise ValueError(f"it states {stated:,} bytes and holds {held:,}")
    if not stated:
        return np.empty(shape, dtype)
    content, at = bytearray(stated), 0
    while at < stated and (part := file.read(min(AT_ONCE, stated - at))):
        content[at : at + len(part)] = part
        at += len(part)
    file.read(1)  # at its end an archive's file checks its sum
    if at != stated:
        raise ValueError(f"it states {stated:,} bytes and holds {at:,}")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if columns else "C")


class _Counting:
    """A file that counts what is read of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.read_bytes = file, 0

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.read_bytes += len(content)
        return content
