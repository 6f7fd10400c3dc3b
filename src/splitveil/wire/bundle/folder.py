"""A bundle in a folder: read, checked file by file, whole or one half of it."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic_core import from_json

from splitveil.core.errors import BundleError, InputError
from splitveil.core.printing import listed, phrase
from splitveil.core.records import SCHEMA_VERSION, Card, Manifest
from splitveil.wire.bundle.graphs import reaches, refuse_reaching
from splitveil.wire.bundle.opening import Source, UnfitError, opened
from splitveil.wire.codecs import CODECS, Codec

MANIFEST, CARD, SIGNATURE = "manifest.json", "card.json", "manifest.sig"
EDGE, CLOUD, GOLDEN = "edge.onnx", "cloud.onnx", "golden.safetensors"
EDGE_WEIGHTS, CLOUD_WEIGHTS = "edge.safetensors", "cloud.safetensors"
FLOAT_EDGE = "edge-float.safetensors"
"""Weights that a quantised edge half was made from: what searches of an audit descend on, and never what ships."""
REQUIRED = (EDGE, CLOUD, GOLDEN)
GRAPHS = (EDGE, CLOUD)
HALVES = {"edge": (EDGE, EDGE_WEIGHTS), "cloud": (CLOUD, CLOUD_WEIGHTS)}
"""Files of each half alone; the graph first."""
OTHER: dict[str, Literal["edge", "cloud"]] = {"edge": "cloud", "cloud": "edge"}

MOST = {MANIFEST: 16 << 20, CARD: 32 << 20, SIGNATURE: 64 << 10, GOLDEN: 256 << 20}
"""Bytes of a file that is held in memory while it is read."""
MOST_BYTES = 2 << 30
"""Of any other file: protobuf takes no larger graph, and weights are no larger than the graph that has them too."""
MOST_FILES = 64
AUDITED = "bundle "
"""Begins the weights that a card of a bundle names; the first 12 digits of its contract follow."""


@dataclass(frozen=True, slots=True)
class Content:
    """What was read with a bundle, each file once.

    Attributes:
        text: exact bytes of the manifest, which a signature is over.
        signature: bytes of the signature's file; None where there is none.
        kept: content of files that were asked to be kept, each of the hash that the manifest says.
    """

    text: bytes = b""
    signature: bytes | None = None
    kept: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle in a folder."""

    folder: Path
    manifest: Manifest
    card: Card | None = None
    content: Content = field(default=Content(), compare=False, repr=False)

    @classmethod
    def peek(cls, folder: Path | str) -> "Bundle":
        """Read the manifest only; `verify` then tells what is wrong with the files. The card is not read.

        Raises:
            InputError: not a bundle.
            BundleError: another schema, or a manifest that cannot be read.
        """
        folder = Path(folder)
        try:
            with opened(folder) as source:
                return _peeked(folder, source)
        except OSError:
            raise _no_bundle(folder) from None

    @classmethod
    def load(cls, folder: Path | str, *, keep: Collection[str] = ()) -> "Bundle":
        """Read a bundle and check every file, each opened once.

        Args:
            folder: of the bundle; may be a link, and what it leads to is held until all is read.
            keep: files whose content stays in memory, so that `read` gives the very bytes that were hashed here.

        Raises:
            InputError: not a bundle.
            BundleError: from another schema, incomplete or altered; all problems in one sentence.
        """
        folder = Path(folder)
        try:
            with opened(folder) as source:
                found = _peeked(folder, source)
                states, content, further = _read(found.manifest, source, {CARD, *keep})
                problems = _problems(found.manifest, states, source.names(), further)
        except OSError:
            raise _no_bundle(folder) from None
        if problems:
            raise BundleError(f"{folder} cannot be used: {listed(problems)}; fetch or write the bundle anew.")
        card = content.pop(CARD, None)
        kept = Content(found.content.text, found.content.signature, content)
        if card is None:
            return cls(folder, found.manifest, None, kept)
        try:
            return cls(folder, found.manifest, _card(card, f"{folder / CARD}"), kept)
        except InputError as error:
            raise BundleError(str(error)) from None

    def verify(self) -> list[str]:
        """Everything that is wrong now, one phrase each; empty when nothing is."""
        return self.examine()[1]

    def states(self) -> dict[str, str]:
        """State of every listed file now: ``ok``, ``missing``, ``altered``, ``outside the bundle``, ..."""
        return self.examine()[0]

    def examine(self) -> tuple[dict[str, str], list[str]]:
        """States and problems, from one look."""
        try:
            with opened(self.folder) as source:
                states, _, further = _read(self.manifest, source, ())
                return states, _problems(self.manifest, states, source.names(), further)
        except OSError as error:
            return {}, [f"the folder is unreadable ({error.strerror})"]

    @property
    def half(self) -> Literal["edge", "cloud"] | None:
        """Which half this is alone; None for a whole bundle."""
        return self.manifest.half

    @property
    def own_card(self) -> Card | None:
        """The card, if it was made of this bundle: one of another bundle never counts."""
        return self.card if self.card is not None and is_of(self.card, self.manifest) else None

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
        if name not in self.manifest.files:
            raise BundleError(f"{self.folder} has no {phrase(name, 80)}; fetch or write the bundle anew.")
        if name in self.content.kept:
            return self.content.kept[name]
        try:
            with opened(self.folder) as source:
                content = source.read(name, most(name))
        except OSError as error:
            raise BundleError(f"cannot read {self.folder / name}: {error.strerror}; fetch the bundle anew.") from None
        except UnfitError as why:
            raise BundleError(f"cannot read {self.folder / name}: it is {why}; fetch the bundle anew.") from None
        if hashlib.sha256(content).hexdigest() != self.manifest.files[name]:
            raise BundleError(f"{self.folder / name} is altered; fetch or write the bundle anew.")
        return content

    def graph(self, name: str) -> bytes:
        """One of the graphs, for an engine: as `read`, and it names nothing outside of itself.

        Raises:
            BundleError: as `read`; or it is no graph, keeps numbers in another file, or needs a library.
        """
        content = self.read(name)
        refuse_reaching(content, f"{self.folder / name}")
        return content

    def without(self, *names: str) -> "Bundle":
        """The same without the content of these files in memory."""
        kept = {name: content for name, content in self.content.kept.items() if name not in names}
        return replace(self, content=replace(self.content, kept=kept))

    def _require(self, half: str) -> None:
        if self.half not in (None, half):
            raise BundleError(
                f"{self.folder} is the {self.half} half of its bundle, expected the {half} half; use the whole bundle "
                f"or what `splitveil bundle split --half {half}` wrote."
            )


def is_of(card: Card, manifest: Manifest) -> bool:
    """Whether a card says that it was made of the bundle with this manifest, or of the other half of that."""
    if card.contract:
        return card.contract == manifest.contract
    return card.weights == f"{AUDITED}{manifest.contract[:12]}"


def names_another(card: Card, manifest: Manifest) -> bool:
    """Whether a card says that it was made of another bundle than this one."""
    return bool(card.contract or card.weights.startswith(AUDITED)) and not is_of(card, manifest)


def most(name: str) -> int:
    """Bytes that a file of this name may have."""
    return MOST.get(name, MOST_BYTES)


def _peeked(folder: Path, source: Source) -> Bundle:
    """What the manifest says, from one read of it."""
    path = folder / MANIFEST
    try:
        text = source.read(MANIFEST, most(MANIFEST))
    except UnfitError as why:
        if str(why) == "missing":
            raise _no_bundle(folder) from None
        raise BundleError(f"{path} is {why}; fetch or write the bundle anew.") from None
    try:
        signature: bytes | None = source.read(SIGNATURE, most(SIGNATURE))
    except UnfitError as why:
        # What is there and cannot be read is no signature either.
        signature = None if str(why) == "missing" else b""
    return Bundle(folder, read_manifest(text, folder), content=Content(text, signature))


def read_manifest(text: bytes, folder: Path) -> Manifest:
    """A manifest from the bytes of its file.

    Raises:
        BundleError: another schema, or none at all.
    """
    path = folder / MANIFEST
    try:
        version = from_json(text)["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise BundleError(f"{path} is not a bundle's manifest; fetch or write the bundle anew.") from None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{folder} is a bundle of schema {phrase(str(version), 20)}, expected {SCHEMA_VERSION}; use the "
            "SplitVeil that wrote it."
        )
    try:
        found = Manifest.from_json(text, str(path))
    except InputError as error:
        raise BundleError(str(error)) from None
    if wrong := found.faults():
        raise BundleError(f"{path} cannot be used: {listed(wrong, most=3)}; fetch or write the bundle anew.")
    return found


def _card(text: bytes, name: str) -> Card:
    found = Card.from_json(text, name)
    if found.schema_version != SCHEMA_VERSION:
        raise InputError(
            f"{name} has schema {found.schema_version}, expected {SCHEMA_VERSION}; use the SplitVeil that wrote it."
        )
    return found


def _read(
    manifest: Manifest, source: Source, keep: Collection[str]
) -> tuple[dict[str, str], dict[str, bytes], dict[str, str]]:
    """State of each listed file, content of those to keep, and what else is wrong with a file; each is opened once."""
    states, kept, further = dict[str, str](), dict[str, bytes](), dict[str, str]()
    for name, digest in list(manifest.files.items())[:MOST_FILES]:
        try:
            if name in keep or name in GRAPHS:
                content = source.read(name, most(name))
                found = hashlib.sha256(content).hexdigest()
                if found == digest and name in GRAPHS:
                    further[name] = reaches(content)
                if found == digest and name in keep:
                    kept[name] = content
            else:
                found = source.digest(name, most(name))
            states[name] = "ok" if found == digest else "altered"
        except UnfitError as why:
            states[name] = str(why)
    if source.is_odd(SIGNATURE):
        further[SIGNATURE] = "is no regular file"
    return states, kept, further


def _problems(
    manifest: Manifest, states: Mapping[str, str], there: Collection[str], further: Mapping[str, str]
) -> list[str]:
    problems = [f"{name} is {state}" for name, state in states.items() if state != "ok"]
    problems += [f"{name} {what}" for name, what in further.items() if what]
    wanted = required(manifest)
    known = {MANIFEST, SIGNATURE, *manifest.files}
    unlisted = [name for name in dict.fromkeys((*wanted, *there)) if name not in known]
    problems += [f"{phrase(name, 80)} is not listed in {MANIFEST}" for name in unlisted]
    if manifest.half:
        foreign = [name for name in HALVES[OTHER[manifest.half]] if name in manifest.files]
        problems += [f"{name} is listed in a bundle of the {manifest.half} half" for name in foreign]
    if len(manifest.files) > MOST_FILES:
        problems.append(f"more than {MOST_FILES} files are listed in {MANIFEST}")
    if manifest.contract != contract_id(manifest):
        problems.append(f"the contract in {MANIFEST} is not that of its halves")
    return problems


def _no_bundle(folder: Path) -> InputError:
    return InputError(f"{folder} is not a bundle: no {MANIFEST}; give a folder that `splitveil fit` wrote.")


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
        BundleError: a state that is not of this codec.
    """
    made = CODECS.build(manifest.codec)
    try:
        return made.restore(manifest.codec_state)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise BundleError(
            f"{MANIFEST} has a state that is none of {manifest.codec} ({type(error).__name__}); write the bundle anew."
        ) from None
