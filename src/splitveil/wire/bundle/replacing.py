"""A folder that takes the place of another one whole, and what killed processes left of that."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OPEN, SECRET = 0o755, 0o700
"""Modes of folders: for everybody to read, and for their owner alone."""
NEW, OLD = "new", "old"


@contextmanager
def replaced(folder: Path, mode: int = OPEN) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `folder` at the end; after an error all is as it was.

    Until then its owner alone may look into it. What killed processes left beside `folder` is removed first.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.{NEW}-"))
    with _marked(fresh):
        try:
            yield fresh
            fresh.chmod(mode)
            sync(fresh)
            _swap(fresh, folder)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise


def remove_leftovers(folder: Path) -> None:
    """Remove half-written folders of processes that were killed while they wrote `folder`.

    Where one was killed between its two renames, what was there before comes back.
    """
    named = re.compile(rf"\.{re.escape(folder.name)}\.({NEW}|{OLD})-[a-z0-9_]{{8}}")
    with suppress(OSError):
        for path in sorted(folder.parent.iterdir()):
            if (found := named.fullmatch(path.name)) and _is_own(path):
                _removed(path, folder, found[1])


def _removed(path: Path, folder: Path, kind: str) -> None:
    with _marked(path) as free:
        if not free:
            return  # whoever writes it lives
        if kind == OLD and not folder.exists() and any(path.iterdir()):
            path.rename(folder)
        else:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _marked(folder: Path) -> Iterator[bool]:
    """Lock a folder for as long as this process lives; whether that could be done (nowhere on Windows)."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (ImportError, AttributeError, OSError):
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError:
            free = False
        yield free
    finally:
        os.close(handle)


def _is_own(path: Path) -> bool:
    """A folder, no link to one, of whoever runs this: others may write beside it too."""
    owned = not hasattr(os, "geteuid") or path.lstat().st_uid == os.geteuid()
    return owned and path.is_dir() and not path.is_symlink()


def _swap(fresh: Path, folder: Path) -> None:
    if not folder.exists():
        fresh.rename(folder)
    else:
        with _marked(folder):
            aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.{OLD}-"))
            folder.rename(aside)
            try:
                fresh.rename(folder)
            except BaseException:
                aside.rename(folder)
                raise
            shutil.rmtree(aside, ignore_errors=True)
    sync(folder.parent)


def sync(folder: Path) -> None:
    """Make a folder's entries durable, where the system can (not on Windows)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
