"""Writing a bundle: whole or not at all."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from splitveil.core.errors import BundleError, InputError
from splitveil.core.records import Card, Manifest
from splitveil.wire.bundle.folder import CARD, MANIFEST, SIGNATURE, Bundle, contract_id, is_plain, required

log = logging.getLogger(__name__)


def write_bundle(folder: Path, manifest: Manifest, files: Mapping[str, bytes | Path]) -> Bundle:
    """Write a bundle atomically and check it: a reader finds the old bundle, the new one or (for an instant) none.

    Hashes and the contract id are filled in here. A bundle that is already there is replaced, its signature with it.

    Args:
        folder: where; anything there but a bundle or an empty folder is left alone.
        manifest: what the halves agreed on; of one half where `half` and `elsewhere` say so.
        files: content, or a file to copy, by plain file name.

    Raises:
        BundleError: the folder holds something else, or a file is missing.
        OSError: the disk is full or cannot be written; what was there is still there.
    """
    folder = folder.resolve()
    for name in files:
        if not is_plain(name) or name in (MANIFEST, SIGNATURE):
            raise BundleError(f"{name!r} cannot be a file of a bundle; use a plain file name other than {MANIFEST}.")
    wanted = required(manifest)
    for name in wanted:
        if name not in files:
            raise BundleError(f"a bundle needs {', '.join(wanted)}, got no {name}; export both halves first.")
    refuse_foreign(folder)
    with replaced(folder) as fresh:
        digests = {name: _put(fresh / name, content) for name, content in files.items()}
        manifest = manifest.model_copy(update={"files": digests})
        manifest = manifest.model_copy(update={"contract": contract_id(manifest)})
        _put(fresh / MANIFEST, manifest.to_json().encode() + b"\n")
    return Bundle.load(folder)


def with_card(bundle: Bundle, card: Card) -> Bundle:
    """The same bundle with this leakage card, rewritten atomically; the contract stays.

    A signature does not stay, for it was over the manifest without this card: a warning is logged.
    """
    files: dict[str, bytes | Path] = {n: bundle.folder / n for n in bundle.manifest.files if n != CARD}
    signed = (bundle.folder / SIGNATURE).exists()
    written = write_bundle(bundle.folder, bundle.manifest, {**files, CARD: card.to_json().encode() + b"\n"})
    if signed:
        log.warning("%s has a new card, so its signature was dropped; sign it again.", bundle.folder)
    return written


def refuse_foreign(folder: Path) -> None:
    """Make sure that a bundle may be written there: nothing, an empty folder, or another bundle.

    Raises:
        InputError: anything else is there.
    """
    if not folder.name:
        raise InputError(f"expected a folder with a name for the bundle, got {folder}; write for example mybundle.")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; choose another folder for the bundle.")
    held = {entry.name for entry in folder.iterdir()}
    if not held:
        return
    if MANIFEST not in held:
        raise InputError(f"{folder} holds something that is not a bundle; choose an empty or new folder.")
    try:
        known: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        listed = {MANIFEST, SIGNATURE, *known["files"]} if "contract" in known else set()
    except (OSError, ValueError, KeyError, TypeError):
        listed = set()
    foreign = sorted(held - listed)
    if foreign:
        raise InputError(f"{folder} also holds {foreign[0]}, which no bundle lists; move it or choose another folder.")


def refuse_taken(folder: Path, *, force: bool) -> None:
    """Make sure that a bundle may be written there, in the place of another one only by `force`.

    Raises:
        InputError: another bundle is there, or something that no bundle is.
    """
    refuse_foreign(folder)
    if not force and (folder / MANIFEST).exists():
        raise InputError(f"{folder} holds a bundle; replace it with --force, or choose another folder.")


def refuse_there(path: Path, *, force: bool) -> None:
    """Make sure that nothing is replaced without `force`: no file is there, and no folder with something in it.

    Raises:
        InputError: it is.
    """
    if not force and path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path} is there already; replace it with --force, or choose another place.")


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `folder` at the end; after an error all is as it was.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.new-"))
    try:
        fresh.chmod(0o755)
        yield fresh
        _sync(fresh)
        _swap(fresh, folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _put(path: Path, content: bytes | Path) -> str:
    """Write or copy one file to the disk; its SHA-256."""
    if isinstance(content, Path):
        if not content.is_file():
            raise BundleError(f"cannot copy {content}: no such file; export both halves first.")
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _swap(fresh: Path, folder: Path) -> None:
    if not folder.exists():
        fresh.rename(folder)
    else:
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old-"))
        folder.rename(aside)
        try:
            fresh.rename(folder)
        except BaseException:
            aside.rename(folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Make a folder's entries durable, where the system can (not on Windows)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
