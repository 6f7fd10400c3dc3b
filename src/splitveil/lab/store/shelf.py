"""`Store`: finished results under a hash of all that decides them, in a folder or at any URL that fsspec reads."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from fsspec.core import url_to_fs
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.core.records import write_atomically
from splitveil.lab.seeds import digest, fingerprint, hardware
from splitveil.lab.store.facts import Facts

Kept = tuple[str, dict[str, Tensor]]
"""JSON and tensors of one finished result."""


class Store:
    """Results, each as JSON with tensors in one file that is named by its `Facts`.

    What made a result (processor, threads, version of the code) stands beside it and decides nothing: what another
    machine finished is found and used, and `notes` says so.

    Args:
        where: a folder, or a URL such as ``s3://bucket/folder``; None keeps nothing.
        work: local folder for what is not finished; None for `where`, or for nowhere if that is none.

    Raises:
        InputError: a URL that cannot be read here.
    """

    def __init__(self, where: Path | str | None, *, work: Path | None = None) -> None:
        self.where = where
        self._place: _Folder | _Remote | None = None
        if where is not None:
            self._place = _Remote(str(where)) if is_remote(where) else _Folder(Path(where))
        self._work = work or (self._place.path if isinstance(self._place, _Folder) else None)
        self._elsewhere: Counter[str] = Counter()

    def kept(self, facts: Facts, make: Callable[[Path | None], Kept]) -> Kept:
        """What `make` gives, made only where it is not there. make: takes the folder of its checkpoints, or None.

        What another run has under way is waited for.
        """
        if (found := self.find(facts)) is not None:
            return found
        with self._claim(facts, wait=True) or Claim():
            if (found := self.find(facts)) is None:
                found = make(self.workdir(facts))
                self.keep(facts, *found)
        return found

    def claim(self, facts: Facts) -> "Claim | None":
        """The right to make a result, until it is released or this process ends; None where another run has it."""
        return self._claim(facts, wait=False)

    def __contains__(self, facts: Facts) -> bool:
        return self._place is not None and self._place.has(_file(facts))

    def find(self, facts: Facts) -> Kept | None:
        """JSON and tensors, if they are finished.

        Raises:
            InputError: the file is damaged.
        """
        if self._place is None or (content := self._place.read(_file(facts))) is None:
            return None
        try:
            metadata, tensors = _opened(content)
            text, expected = metadata["record"], metadata["digest"]
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError):
            metadata, text, expected, tensors = {}, "", "damaged", {}
        if _digest(text, tensors) != expected:
            raise InputError(f"{self._place.told(_file(facts))} is damaged; delete it and run again with --resume.")
        if (by := metadata.get("machine", "")) != machine():
            self._elsewhere[by] += 1
        return text, tensors

    def keep(self, facts: Facts, text: str, tensors: Mapping[str, Tensor], *, by: str = "") -> None:
        """Write what is finished and drop its checkpoints. by: the machine that made it; empty for this one."""
        if self._place is not None:
            own = {k: v.contiguous() for k, v in tensors.items()}
            made = {"machine": by or machine(), "code": fingerprint()["code"]}
            self._place.write(_file(facts), save(own, {"record": text, "digest": _digest(text, own), **made}))
        self._clear(facts)

    def drop(self, facts: Facts) -> None:
        """Forget the result and its checkpoints."""
        if self._place is not None:
            self._place.drop(_file(facts))
        self._clear(facts)

    def workdir(self, facts: Facts) -> Path | None:
        """Where whoever makes the result keeps checkpoints; None for nowhere."""
        if self._work is None:
            return None
        path = self._work / f"{facts.name}.work"
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def notes(self) -> list[str]:
        """Which of the results that were found another machine made; for the card."""
        return [f"{n} of the results were found finished, made on {of}" for of, n in sorted(self._elsewhere.items())]

    def _claim(self, facts: Facts, *, wait: bool) -> "Claim | None":
        if self._work is None:
            return Claim()
        self._work.mkdir(parents=True, exist_ok=True)
        path = self._work / f"{facts.name}.lock"
        lock = FileLock(path, thread_local=False)
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            return None
        if facts in self:
            path.unlink(missing_ok=True)
        return Claim(lock)

    def _clear(self, facts: Facts) -> None:
        if self._work is not None:
            shutil.rmtree(self._work / f"{facts.name}.work", ignore_errors=True)
            # Whoever waits for it finds a finished result before it would make one.
            (self._work / f"{facts.name}.lock").unlink(missing_ok=True)


class Claim:
    """The right to make one result. Of no weight where results are kept at a URL alone."""

    def __init__(self, lock: FileLock | None = None) -> None:
        self._lock = lock

    def release(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class _Folder:
    """Files of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def told(self, name: str) -> str:
        return str(self.path / name)

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        write_atomically(self.path / name, content)

    def drop(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)


class _Remote:
    """Files wherever fsspec reaches."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        try:
            files, root = url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise InputError(f"cannot keep results at {self.url} ({error}); give a folder.") from None
        return files, str(root)

    def told(self, name: str) -> str:
        return f"{self.url}/{name}"

    def has(self, name: str) -> bool:
        files, root = self._opened
        return bool(files.exists(f"{root}/{name}"))

    def read(self, name: str) -> bytes | None:
        files, root = self._opened
        try:
            return bytes(files.cat_file(f"{root}/{name}"))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        files, root = self._opened
        files.makedirs(root, exist_ok=True)
        # A reader sees nothing before the transaction ends.
        with files.transaction, files.open(f"{root}/{name}", "wb") as out:
            out.write(content)

    def drop(self, name: str) -> None:
        files, root = self._opened
        if files.exists(f"{root}/{name}"):
            files.rm_file(f"{root}/{name}")


def is_remote(where: Path | str) -> bool:
    """A URL, not a path."""
    return isinstance(where, str) and "://" in where


def _file(facts: Facts) -> str:
    return f"{facts.name}.safetensors"


def machine() -> str:
    """What stands beside results that are made here: processor and threads."""
    return f"{hardware()}, {torch.get_num_threads()} threads"


def _opened(content: bytes) -> tuple[dict[str, str], dict[str, Tensor]]:
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size])["__metadata__"], load(content)


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    arrays = digest(*(tensors[k].numpy() for k in sorted(tensors)))
    return hashlib.blake2b(f"{sorted(tensors)}{arrays}{text}".encode(), digest_size=16).hexdigest()
