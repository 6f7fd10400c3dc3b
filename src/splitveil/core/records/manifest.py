"""A bundle's manifest: its halves, codec, contract and files with their hashes."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from splitveil.core.printing import phrase
from splitveil.core.records.accuracy import Accuracy
from splitveil.core.records.base import Document, Record
from splitveil.core.records.card import Cut
from splitveil.core.records.device import Timing

LONGEST = 4096
"""Characters of a name; a spec of many parts, or a path, is one too."""
MOST_AXES, MOST_VALUES = 8, 2**31
"""Of one sample of one tensor."""


def is_name(text: str) -> bool:
    """The one grammar of all names in a manifest: 1 to `LONGEST` characters that can be printed, so on one line."""
    return 0 < len(text) <= LONGEST and text.isprintable()


class Tensor(Record):
    """Name, Open Inference Protocol datatype and shape of one tensor; -1 stands for the batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Quantization(Record):
    """How an edge half was quantised, and what that cost: both edges on the same test images with the same noise."""

    activations: str = "uint8"
    weights: str = "int8 per channel"
    calibrated_on: int = Field(description="training images")
    seed: int = Field(description="of the choice of these images and of the noise")
    tested_on: int = Field(description="test images, all of them")
    accuracy_before: float
    accuracy_after: float
    tested_before: Accuracy | None = Field(default=None, description="the float edge, with its interval")
    tested_after: Accuracy | None = Field(default=None, description="the quantised edge, with its interval")
    agreement: float = Field(description="share of test images with the same answer, 0 to 1")
    bytes_before: int = Field(description="of edge.onnx")
    bytes_after: int
    latency_before: Timing
    latency_after: Timing
    hardware: str
    source: str = Field(description="contract of the bundle it came from, which an audit can take")


class Picture(Record):
    """How a picture file becomes an input of the edge half: the same in training and on the device, to the byte.

    Part of the contract, which leaves out fields that have their default: a later field needs one.
    """

    loader: int = Field(description="version of `splitveil.wire.pictures`; another one may give other pixels")
    source: Literal["files", "arrays"] = Field(
        description="files: trained on pictures read so; arrays: on arrays as given, and pictures are read so to fit"
    )
    size: tuple[int, int] = Field(description="(width, height) in pixels")
    channels: int = Field(description="1: grey, 3: red, green, blue; alpha is dropped")
    orientation: str = Field(description="exif: turned upright by the EXIF mark")
    crop: str = Field(description="centre: what has another shape loses the ends of its longer side; none: is squeezed")
    resample: str = Field(description="bilinear")
    antialias: bool


class DeviceGraph(Document):
    """The edge half for another engine on the device, and what whoever calls it must know."""

    kind: ClassVar[str] = "device-graph"

    engine: str = Field(description="openvino or executorch")
    contract: str = Field(description="of the bundle: tell it to the server beside what is sent")
    batch: int | None = Field(description="rows of one call; None: any number")
    inputs: list[Tensor] = Field(description="in their order; draw the noise, standard normal, afresh for every call")
    output: Tensor = Field(description="what crosses the wire, as it crosses")
    files: dict[str, str] = Field(description="SHA-256 by file name")
    picture: Picture | None = Field(default=None, description="how the bundle makes an input of a picture")
    largest_difference: float = Field(
        description="from ONNX Runtime on the same random inputs: in codes, or of floats over the larger of 1 and them"
    )
    tested_on: int = Field(description="images of that comparison")
    versions: dict[str, str]


class Signature(Document):
    """An Ed25519 signature (RFC 8032) over the exact bytes of ``manifest.json``, which names the hash of every file."""

    kind: ClassVar[str] = "signature"

    algorithm: Literal["ed25519"] = "ed25519"
    key: str = Field(description="SHA-256 of the raw public key, hexadecimal; tells keys apart, proves nothing")
    signature: str = Field(description="64 bytes, hexadecimal")


class Manifest(Document):
    """What a bundle holds and what both halves agreed on."""

    kind: ClassVar[str] = "manifest"

    name: str
    model: str = Field(description="as given to the loader, to rebuild the nets for re-training and audits")
    cut: Cut
    classes: list[str]
    image_shape: tuple[int, int, int] = Field(description="(C, H, W) in [0, 1]; the model normalises itself")
    preprocessing: str = Field(default="", description="what makes an input of a picture, in words")
    picture: Picture | None = Field(default=None, description="the same, for a program; None: not said, see `assumed`")
    defense: str
    codec: str
    codec_state: dict[str, Any] = {}
    noise: Tensor | None = Field(default=None, description="standard normal input of the edge graph, fresh per request")
    input: Tensor
    features: Tensor
    output: Tensor
    contract: str = Field(description="hash of everything that must be the same on both sides")
    task_accuracy: float | None = None
    tested: Accuracy | None = Field(default=None, description="the same on the test images, with its interval")
    undefended: Accuracy | None = Field(
        default=None, description="of the model with its weights, whole, before the defence, on the same images"
    )
    epochs: int | None = Field(default=None, description="of training with the defence; None: not recorded")
    untrained: bool = Field(
        default=False, description="the defence works by training and was never trained: do not count on it"
    )
    files: dict[str, str] = Field(default={}, description="SHA-256 of every other file")
    half: Literal["edge", "cloud"] | None = Field(default=None, description="None: both halves are here")
    elsewhere: dict[str, str] = Field(default={}, description="SHA-256 of the other half's graph, for the contract")
    quantization: Quantization | None = None
    versions: dict[str, str] = {}

    def faults(self) -> list[str]:
        """What no bundle can be used with, one phrase each: names that cannot be printed, shapes of no tensor."""
        wrong = [f"{where} {phrase(text, 40)!r} is no name" for where, text in self._names() if not is_name(text)]
        wrong += [f"{t.name} has the shape {phrase(str(t.shape), 60)}" for t in self._tensors() if not _is_shape(t)]
        for what, shape in (("image_shape", self.image_shape), ("cut.shape", self.cut.shape)):
            if not _are_sizes(shape):
                wrong.append(f"{what} is {phrase(str(shape), 60)}")
        if not wrong and self.output.shape[1:] != (len(self.classes),):
            wrong.append(f"{len(self.classes)} classes for outputs of {phrase(str(self.output.shape), 60)}")
        return wrong

    def _tensors(self) -> list[Tensor]:
        return [self.input, self.features, self.output, *([self.noise] if self.noise else [])]

    def _names(self) -> Iterator[tuple[str, str]]:
        yield from {
            "name": self.name, "model": self.model, "cut": self.cut.name, "defense": self.defense, "codec": self.codec,
        }.items()  # fmt: skip
        yield from (("tensor", text) for t in self._tensors() for text in (t.name, t.datatype))
        yield from (("class", text) for text in self.classes)
        yield from (("cut", text) for text in self.cut.also)
        pairs = {**self.elsewhere, **self.files, **self.versions}
        yield from (("text", t) for t in (*pairs, *pairs.values(), self.preprocessing, self.contract) if t)
        if self.quantization is not None:
            found = self.quantization
            yield from (("text", t) for t in (found.activations, found.weights, found.hardware, found.source))


def _is_shape(tensor: Tensor) -> bool:
    """Rows, as many as there are, of one sample."""
    return len(tensor.shape) > 1 and _are_sizes(tensor.shape[1:])


def _are_sizes(shape: tuple[int, ...]) -> bool:
    return 0 < len(shape) <= MOST_AXES and all(size > 0 for size in shape) and math.prod(shape) <= MOST_VALUES
