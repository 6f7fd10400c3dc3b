"""Writing a bundle: whole or not at all."""

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from splitveil.core.errors import BundleError, InputError
from splitveil.core.printing import listed, phrase
from splitveil.core.records import Card, Manifest
from splitveil.wire.bundle.folder import (
    CARD,
    MANIFEST,
    SIGNATURE,
    Bundle,
    contract_id,
    is_of,
    most,
    names_another,
    required,
)
from splitveil.wire.bundle.opening import UnfitError, is_plain, opened
from splitveil.wire.bundle.replacing import OPEN, SECRET, remove_leftovers, replaced

log = logging.getLogger(__name__)


class Part(NamedTuple):
    """A file of another bundle, copied as its manifest has it."""

    bundle: Bundle
    name: str


Content = bytes | Path | Part


def parts(bundle: Bundle, names: Iterable[str]) -> dict[str, Content]:
    """Those files of a bundle, by their names."""
    return {name: Part(bundle, name) for name in names}


def write_bundle(
    folder: Path,
    manifest: Manifest,
    files: Mapping[str, Content],
    card: Card | None = None,
    *,
    mode: int | None = None,
) -> Bundle:
    """Write a bundle atomically and check it: a reader finds the old bundle, the new one or (for an instant) none.

    Hashes and the contract id are filled in here. A bundle that is already there is replaced, its signature with it.
    Whatever has the edge half holds the defence's secrets and is for its owner alone (0700, files 0600); the cloud half
    may be read by whoever serves it.

    Args:
        folder: where; anything there but a bundle or an empty folder is left alone.
        manifest: what the halves agreed on; of one half where `half` and `elsewhere` say so.
        files: content, or a file to copy, by plain file name.
        card: the leakage card; one that does not say of which bundle it is, is told this one's contract.
        mode: of the folder; None: as said above.

    Raises:
        BundleError: the folder holds something else, a file is missing or altered, or the card is of another bundle.
        InputError: a name with a line break or with what controls a terminal.
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
    if wrong := manifest.faults():
        raise InputError(
            f"expected names of printable characters on one line, and shapes of tensors, got {listed(wrong, most=3)}; "
            "rename them, or give as many classes as there are outputs."
        )
    refuse_foreign(folder)
    mode = mode if mode is not None else OPEN if manifest.half == "cloud" else SECRET
    with replaced(folder, mode) as fresh:
        digests = {name: _put(fresh / name, content, mode) for name, content in files.items()}
        manifest = manifest.model_copy(update={"files": digests})
        manifest = manifest.model_copy(update={"contract": contract_id(manifest)})
        if card is not None:
            if names_another(card, manifest):
                raise BundleError(f"the card is of another bundle than {folder}; audit this one.")
            own = card if is_of(card, manifest) else card.model_copy(update={"contract": manifest.contract})
            digests[CARD] = _put(fresh / CARD, own.to_json().encode() + b"\n", mode)
            manifest = manifest.model_copy(update={"files": digests})
        _put(fresh / MANIFEST, manifest.to_json().encode() + b"\n", mode)
    return Bundle.load(folder)


def with_card(bundle: Bundle, card: Card) -> Bundle:
    """The same bundle with this leakage card, rewritten atomically; the contract stays.

    A signature does not stay, for it was over the manifest without this card: a warning is logged.

    Raises:
        BundleError: the card is of another bundle, or this one is not there any more.
    """
    if names_another(card, bundle.manifest):
        raise BundleError(f"the card is of another bundle than {bundle.folder}; audit this one.")
    files = parts(bundle, (name for name in bundle.manifest.files if name != CARD))
    signed = (bundle.folder / SIGNATURE).exists()
    mode = bundle.folder.stat().st_mode & 0o777
    written = write_bundle(bundle.folder, bundle.manifest, files, card, mode=mode)
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
    remove_leftovers(folder.resolve())
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; choose another folder for the bundle.")
    held = {entry.name for entry in folder.iterdir()}
    if not held:
        return
    if MANIFEST not in held:
        raise InputError(f"{folder} holds something that is not a bundle; choose an empty or new folder.")
    known = set[str]()
    with suppress(OSError, UnfitError, ValueError, KeyError, TypeError), opened(folder) as source:
        told: dict[str, Any] = from_json(source.read(MANIFEST, most(MANIFEST)))
        known = {MANIFEST, SIGNATURE, *told["files"]} if "contract" in told else set()
    foreign = sorted(held - known)
    if foreign:
        raise InputError(
            f"{folder} also holds {phrase(foreign[0], 80)}, which no bundle lists; move it or choose another folder."
        )


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


def _put(path: Path, content: Content, mode: int) -> str:
    """Write or copy one file to the disk; its SHA-256."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode & 0o666)
    with os.fdopen(handle, "wb") as out:
        if isinstance(content, bytes):
            out.write(content)
            digest = hashlib.sha256(content).hexdigest()
        else:
            source = content if isinstance(content, Path) else content.bundle.folder / content.name
            try:
                with opened(source.parent) as folder:
                    digest = folder.copy(source.name, most(source.name), out)
            except (OSError, UnfitError) as why:
                if isinstance(why, OSError) and not isinstance(why, FileNotFoundError):
                    raise
                raise BundleError(f"cannot copy {source}: {_why(why)}; export both halves first.") from None
            if isinstance(content, Part) and digest != content.bundle.manifest.files[content.name]:
                raise BundleError(f"{source} is altered; fetch or write the bundle anew.")
        out.flush()
        os.fsync(out.fileno())
    return digest


def _why(why: Exception) -> str:
    return "no such file" if isinstance(why, OSError) or str(why) == "missing" else f"it is {why}"
