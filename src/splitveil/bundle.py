"""The deployable artefact: both halves, what they agreed on and the leakage card, in one folder with hashes.

NumPy, pydantic and the standard library only: this is what a device and a server read. JSON, ONNX and safetensors; no
pickle. Hashes find damage and mix-ups; whoever can write the manifest can write them too, so they are not a signature.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from splitveil.codecs import CODECS, Codec
from splitveil.errors import BundleError, InputError
from splitveil.records import SCHEMA_VERSION, Card, Manifest

MANIFEST, CARD = "manifest.json", "card.json"
EDGE, CLOUD, GOLDEN = "edge.onnx", "cloud.onnx", "golden.safetensors"
EDGE_WEIGHTS, CLOUD_WEIGHTS = "edge.safetensors", "cloud.safetensors"
REQUIRED = (EDGE, CLOUD, GOLDEN)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle in a folder."""

    folder: Path
    manifest: Manifest
    card: Card | None = None

    @classmethod
    def peek(cls, folder: Path) -> "Bundle":
        """Read the manifest only; `verify` then tells what is wrong with the files. The card is not read.

        Raises:
            InputError: not a bundle.
            BundleError: another schema, or a manifest that cannot be read.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise InputError(f"{folder} is not a bundle: no {MANIFEST}; give a folder that `splitveil fit` wrote.")
        try:
            version = json.loads(path.read_bytes())["schema_version"]
        except (OSError, ValueError, KeyError, TypeError):
            raise BundleError(f"{path} is not a bundle's manifest; fetch or write the bundle anew.") from None
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{folder} is a bundle of schema {version}, expected {SCHEMA_VERSION}; use the SplitVeil that wrote it."
            )
        try:
            return cls(folder, Manifest.load(path))
        except InputError as error:
            raise BundleError(str(error)) from None

    @classmethod
    def load(cls, folder: Path) -> "Bundle":
        """Read a bundle and check every file.

        Raises:
            InputError: not a bundle.
            BundleError: from another schema, incomplete or altered; all problems in one sentence.
        """
        found = cls.peek(folder)
        problems = found.verify()
        if problems:
            raise BundleError(f"{folder} cannot be used: {'; '.join(problems)}; fetch or write the bundle anew.")
        if CARD not in found.manifest.files:
            return found
        try:
            return cls(folder, found.manifest, Card.load(folder / CARD))
        except InputError as error:
            raise BundleError(str(error)) from None

    def verify(self) -> list[str]:
        """Everything that is wrong, one phrase each; empty when nothing is."""
        problems = [f"{name} is {state}" for name, state in self.states().items() if state != "ok"]
        problems += [f"{name} is not listed in {MANIFEST}" for name in REQUIRED if name not in self.manifest.files]
        if self.manifest.contract != contract_id(self.manifest):
            problems.append(f"the contract in {MANIFEST} is not that of its halves")
        return problems

    def states(self) -> dict[str, str]:
        """State of every listed file: ``ok``, ``missing``, ``altered`` or ``outside the bundle``."""
        return {name: self._state(name, digest) for name, digest in self.manifest.files.items()}

    def read(self, name: str) -> bytes:
        """A file's content, checked as it is read.

        Raises:
            BundleError: not in this bundle, missing or altered.
        """
        if not _plain(name) or name not in self.manifest.files:
            raise BundleError(f"{self.folder} has no {name}; fetch or write the bundle anew.")
        try:
            content = (self.folder / name).read_bytes()
        except OSError as error:
            raise BundleError(f"cannot read {self.folder / name}: {error.strerror}; fetch the bundle anew.") from None
        if hashlib.sha256(content).hexdigest() != self.manifest.files[name]:
            raise BundleError(f"{self.folder / name} is altered; fetch or write the bundle anew.")
        return content

    def _state(self, name: str, digest: str) -> str:
        if not _plain(name):
            return "outside the bundle"
        try:
            with (self.folder / name).open("rb") as file:
                return "ok" if hashlib.file_digest(file, "sha256").hexdigest() == digest else "altered"
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            return f"unreadable ({error.strerror})"


def contract_id(manifest: Manifest) -> str:
    """Hash of everything that must be the same on both sides: 32 hexadecimal digits."""
    agreed = {
        "cut": manifest.cut.name,
        "features": manifest.features.model_dump(mode="json"),
        "codec": manifest.codec,
        "codec_state": manifest.codec_state,
        "defense": manifest.defense,
        "noise": manifest.noise.model_dump(mode="json") if manifest.noise else None,
        "output": manifest.output.model_dump(mode="json"),
        EDGE: manifest.files.get(EDGE),
        CLOUD: manifest.files.get(CLOUD),
    }
    text = json.dumps(agreed, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def codec(manifest: Manifest) -> Codec:
    """The codec that both halves of this bundle use, with its state.

    Raises:
        UnknownNameError: a codec that is not installed here.
    """
    return CODECS.build(manifest.codec).restore(manifest.codec_state)


def write_bundle(folder: Path, manifest: Manifest, files: Mapping[str, bytes | Path]) -> Bundle:
    """Write a bundle atomically and check it: a reader finds the old bundle, the new one or (for an instant) none.

    Hashes and the contract id are filled in here. A bundle that is already there is replaced.

    Args:
        folder: where; anything there but a bundle or an empty folder is left alone.
        manifest: what the halves agreed on.
        files: content, or a file to copy, by plain file name.

    Raises:
        BundleError: the folder holds something else, or a file is missing.
    """
    folder = folder.resolve()
    for name in files:
        if not _plain(name) or name == MANIFEST:
            raise BundleError(f"{name!r} cannot be a file of a bundle; use a plain file name other than {MANIFEST}.")
    for name in REQUIRED:
        if name not in files:
            raise BundleError(f"a bundle needs {', '.join(REQUIRED)}, got no {name}; export both halves first.")
    refuse_foreign(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.new-"))
    try:
        fresh.chmod(0o755)
        digests = {name: _put(fresh / name, content) for name, content in files.items()}
        manifest = manifest.model_copy(update={"files": digests})
        manifest = manifest.model_copy(update={"contract": contract_id(manifest)})
        _put(fresh / MANIFEST, manifest.to_json().encode() + b"\n")
        _sync(fresh)
        _swap(fresh, folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return Bundle.load(folder)


def with_card(bundle: Bundle, card: Card) -> Bundle:
    """The same bundle with this leakage card, rewritten atomically; the contract stays."""
    files: dict[str, bytes | Path] = {n: bundle.folder / n for n in bundle.manifest.files if n != CARD}
    return write_bundle(bundle.folder, bundle.manifest, {**files, CARD: card.to_json().encode() + b"\n"})


def _plain(name: str) -> bool:
    """Whether `name` is one path component on POSIX and on Windows."""
    one = PurePosixPath(name).name == name and PureWindowsPath(name).name == name
    return one and name not in ("", ".", "..") and "\0" not in name


def refuse_foreign(folder: Path) -> None:
    """Make sure that a bundle may be written there: nothing, an empty folder, or another bundle.

    Raises:
        InputError: anything else is there.
    """
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
        listed = {MANIFEST, *known["files"]} if "contract" in known else set()
    except (OSError, ValueError, KeyError, TypeError):
        listed = set()
    foreign = sorted(held - listed)
    if foreign:
        raise InputError(f"{folder} also holds {foreign[0]}, which no bundle lists; move it or choose another folder.")


def _put(path: Path, content: bytes | Path) -> str:
    """Write or copy one file to the disk; its SHA-256."""
    if isinstance(content, Path):
        try:
            shutil.copyfile(content, path)
        except OSError as error:
            raise BundleError(f"cannot copy {content}: {error.strerror}; export both halves first.") from None
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
