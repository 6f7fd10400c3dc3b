"""A bundle in a folder: read, checked file by file, whole or one half of it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from splitveil.core.errors import BundleError, InputError
from splitveil.core.records import SCHEMA_VERSION, Card, Manifest
from splitveil.wire.codecs import CODECS, Codec

MANIFEST, CARD, SIGNATURE = "manifest.json", "card.json", "manifest.sig"
EDGE, CLOUD, GOLDEN = "edge.onnx", "cloud.onnx", "golden.safetensors"
EDGE_WEIGHTS, CLOUD_WEIGHTS = "edge.safetensors", "cloud.safetensors"
FLOAT_EDGE = "edge-float.safetensors"
"""Weights that a quantised edge half was made from: what searches of an audit descend on, and never what ships."""
REQUIRED = (EDGE, CLOUD, GOLDEN)
HALVES = {"edge": (EDGE, EDGE_WEIGHTS), "cloud": (CLOUD, CLOUD_WEIGHTS)}
"""Files of each half alone; the graph first."""
OTHER: dict[str, Literal["edge", "cloud"]] = {"edge": "cloud", "cloud": "edge"}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle in a folder."""

    folder: Path
    manifest: Manifest
    card: Card | None = None

    @classmethod
    def peek(cls, folder: Path | str) -> "Bundle":
        """Read the manifest only; `verify` then tells what is wrong with the files. The card is not read.

        Raises:
            InputError: not a bundle.
            BundleError: another schema, or a manifest that cannot be read.
        """
        folder = Path(folder)
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
    def load(cls, folder: Path | str) -> "Bundle":
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
            return cls(found.folder, found.manifest, Card.load(found.folder / CARD))
        except InputError as error:
            raise BundleError(str(error)) from None

    def verify(self) -> list[str]:
        """Everything that is wrong, one phrase each; empty when nothing is."""
        problems = [f"{name} is {state}" for name, state in self.states().items() if state != "ok"]
        wanted = required(self.manifest)
        problems += [f"{name} is not listed in {MANIFEST}" for name in wanted if name not in self.manifest.files]
        if self.half:
            foreign = [name for name in HALVES[OTHER[self.half]] if name in self.manifest.files]
            problems += [f"{name} is listed in a bundle of the {self.half} half" for name in foreign]
        if self.manifest.contract != contract_id(self.manifest):
            problems.append(f"the contract in {MANIFEST} is not that of its halves")
        return problems

    @property
    def half(self) -> Literal["edge", "cloud"] | None:
        """Which half this is alone; None for a whole bundle."""
        return self.manifest.half

    def require_edge(self) -> None:
        """Make sure that the device's half is here.

        Raises:
            BundleError: this is the cloud half alone.
        """
        self._require("edge")

    def require_cloud(self) -> None:
        """Make sure that the server's half is here.

        Raises:
            BundleError: this is the edge half alone.
        """
        self._require("cloud")

    def states(self) -> dict[str, str]:
        """State of every listed file: ``ok``, ``missing``, ``altered`` or ``outside the bundle``."""
        return {name: self._state(name, digest) for name, digest in self.manifest.files.items()}

    def read(self, name: str) -> bytes:
        """A file's content, checked as it is read.

        Raises:
            BundleError: not in this bundle, missing or altered.
        """
        for half, names in HALVES.items():
            if name in names:
                self._require(half)
        if name == EDGE_WEIGHTS and self.manifest.quantization:
            raise BundleError(
                f"{self.folder} has a quantised edge, which cannot be trained; use the bundle "
                f"{self.manifest.quantization.source[:12]} that it was made from."
            )
        if not is_plain(name) or name not in self.manifest.files:
            raise BundleError(f"{self.folder} has no {name}; fetch or write the bundle anew.")
        try:
            content = (self.folder / name).read_bytes()
        except OSError as error:
            raise BundleError(f"cannot read {self.folder / name}: {error.strerror}; fetch the bundle anew.") from None
        if hashlib.sha256(content).hexdigest() != self.manifest.files[name]:
            raise BundleError(f"{self.folder / name} is altered; fetch or write the bundle anew.")
        return content

    def _require(self, half: str) -> None:
        if self.half not in (None, half):
            raise BundleError(
                f"{self.folder} is the {self.half} half of its bundle, expected the {half} half; use the whole bundle "
                f"or what `splitveil bundle split --half {half}` wrote."
            )

    def _state(self, name: str, digest: str) -> str:
        if not is_plain(name):
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
    held = {**manifest.elsewhere, **manifest.files}
    agreed: dict[str, object] = {
        "cut": manifest.cut.name,
        "features": manifest.features.model_dump(mode="json"),
        "codec": manifest.codec,
        "codec_state": manifest.codec_state,
        "defense": manifest.defense,
        "noise": manifest.noise.model_dump(mode="json") if manifest.noise else None,
        "output": manifest.output.model_dump(mode="json"),
        EDGE: held.get(EDGE),
        CLOUD: held.get(CLOUD),
    }
    # Bundles from before it was said keep their contract.
    if manifest.picture is not None:
        agreed["picture"] = manifest.picture.model_dump(mode="json", exclude_defaults=True)
    text = json.dumps(agreed, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def required(manifest: Manifest) -> tuple[str, ...]:
    """Files that a bundle with this manifest must hold."""
    return {None: REQUIRED, "edge": (EDGE,), "cloud": (CLOUD, GOLDEN)}[manifest.half]


def codec(manifest: Manifest) -> Codec:
    """The codec that both halves of this bundle use, with its state.

    Raises:
        UnknownNameError: a codec that is not installed here.
    """
    return CODECS.build(manifest.codec).restore(manifest.codec_state)


def is_plain(name: str) -> bool:
    """Whether `name` is one path component on POSIX and on Windows."""
    one = PurePosixPath(name).name == name and PureWindowsPath(name).name == name
    return one and name not in ("", ".", "..") and "\0" not in name
