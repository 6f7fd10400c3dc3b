"""Files of a folder that strangers may have written, opened without trusting it.

Regular files only: a FIFO would wait for ever, a device never ends, a link leads elsewhere. The folder is resolved once
and held, so that what is renamed above it meanwhile changes nothing; each file is opened once and its size is bounded.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

DATA = "..data"
"""Where Kubernetes mounts a volume of files, each is a link into this one, itself a link to a folder beside it that is
exchanged whole. It is followed once."""
AT_ONCE = 1 << 20
MOST_ENTRIES = 1000
"""Of a folder that is a bundle."""
HERE = os.open in os.supports_dir_fd
"""Whether the system opens a name below a folder that is held (not on Windows)."""


class UnfitError(Exception):
    """Why a file cannot be taken, as a phrase that follows its name; never leaves this room."""


class Source:
    """A folder that is held open.

    Args:
        path: of the folder, for systems that cannot hold it.
        handle: of the folder, or -1.
        outer: of the folder around it, where `DATA` led on; else -1.
    """

    def __init__(self, path: Path, handle: int, outer: int = -1) -> None:
        self._path, self._handle, self._outer = path, handle, outer

    def read(self, name: str, most: int) -> bytes:
        """The whole content.

        Raises:
            UnfitError: missing, unreadable, no regular file, or more than `most` bytes.
        """
        with self._opened(name, most) as (file, size):
            content = b"".join(_chunks(file, size, size + 1))
        if len(content) != size:
            raise UnfitError("changed while it was read")
        return content

    def digest(self, name: str, most: int) -> str:
        """Its SHA-256, with little memory.

        Raises:
            UnfitError: as `read`.
        """
        made = hashlib.sha256()
        with self._opened(name, most) as (file, size):
            for part in _chunks(file, size):
                made.update(part)
        return made.hexdigest()

    def is_odd(self, name: str) -> bool:
        """Whether something is there that is no regular file."""
        try:
            there = os.stat(name, dir_fd=self._handle, follow_symlinks=False) if HERE else (self._path / name).lstat()
        except OSError:
            return False
        return not stat.S_ISREG(there.st_mode)

    def copy(self, name: str, most: int, out: BinaryIO) -> str:
        """Copy it; the SHA-256 of what was copied.

        Raises:
            UnfitError: as `read`.
            OSError: `out` takes no more.
        """
        made = hashlib.sha256()
        with self._opened(name, most) as (file, size):
            for part in _chunks(file, size):
                made.update(part)
                out.write(part)
        return made.hexdigest()

    def names(self) -> list[str]:
        """Of everything in the folder, sorted; of more than `MOST_ENTRIES` some."""
        where = self._handle if HERE else self._path
        with os.scandir(where) as entries:
            found = [entry.name for entry in islice(entries, MOST_ENTRIES + 1)]
        if self._outer >= 0:
            with os.scandir(self._outer) as entries:
                found += [e.name for e in islice(entries, MOST_ENTRIES + 1) if not self._leads_in(e.name)]
        return sorted(set(found))

    def _leads_in(self, name: str) -> bool:
        """Whether an entry of the folder around is part of the mount."""
        if name.startswith(".."):
            return True
        with suppress(OSError):
            return os.readlink(name, dir_fd=self._outer) == f"{DATA}/{name}"
        return False

    @contextmanager
    def _opened(self, name: str, most: int) -> Iterator[tuple[int, int]]:
        if not is_plain(name):
            raise UnfitError("outside the bundle")
        try:
            handle = self._handle_of(name)
        except FileNotFoundError:
            raise UnfitError("missing") from None
        except OSError as error:
            # A link, a socket, or a device without a driver.
            if self.is_odd(name):
                raise UnfitError("no regular file") from None
            raise UnfitError(f"unreadable ({error.strerror})") from None
        try:
            seen = os.fstat(handle)
            if not stat.S_ISREG(seen.st_mode):
                raise UnfitError("no regular file")
            if seen.st_size > most:
                raise UnfitError(f"larger than {most:,} bytes")
            yield handle, seen.st_size
        finally:
            os.close(handle)

    def _handle_of(self, name: str) -> int:
        # Without waiting: else a FIFO would keep it here until somebody writes.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        if HERE:
            return os.open(name, flags, dir_fd=self._handle)
        if self.is_odd(name):
            raise PermissionError(0, "no regular file")
        return os.open(self._path / name, flags)


@contextmanager
def opened(folder: Path) -> Iterator[Source]:
    """The folder that `folder` leads to now, held until the end of the block; `folder` itself may be a link.

    Raises:
        OSError: no such folder.
    """
    if not HERE:
        yield Source(folder, -1)
        return
    flags = os.O_RDONLY | os.O_DIRECTORY
    outer = inner = os.open(folder, flags)
    try:
        with suppress(OSError):
            target = os.readlink(DATA, dir_fd=outer)
            if is_plain(target):
                inner = os.open(target, flags | os.O_NOFOLLOW, dir_fd=outer)
        yield Source(folder, inner, outer if inner != outer else -1)
    finally:
        for handle in {outer, inner}:
            os.close(handle)


def is_plain(name: str) -> bool:
    """Whether `name` is one path component on POSIX and on Windows."""
    one = PurePosixPath(name).name == name and PureWindowsPath(name).name == name
    return one and name not in ("", ".", "..") and "\0" not in name


def _chunks(handle: int, size: int, at_once: int = AT_ONCE) -> Iterator[bytes]:
    """Up to one byte more than `size`, which tells a file that grows."""
    left = size + 1
    while left > 0:
        try:
            part = os.read(handle, min(at_once, left))
        except OSError as error:
            raise UnfitError(f"unreadable ({error.strerror})") from None
        if not part:
            return
        left -= len(part)
        yield part
