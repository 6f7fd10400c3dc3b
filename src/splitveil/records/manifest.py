"""What a bundle says of itself."""

from typing import Any, ClassVar

from pydantic import Field

from splitveil.records.base import Document, Record
from splitveil.records.card import Cut


class Tensor(Record):
    """Name, Open Inference Protocol datatype and shape of one tensor; -1 stands for the batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Manifest(Document):
    """What a bundle holds and what both halves agreed on."""

    kind: ClassVar[str] = "manifest"

    name: str
    model: str = Field(description="as given to the loader, to rebuild the nets for re-training and audits")
    cut: Cut
    classes: list[str]
    image_shape: tuple[int, int, int] = Field(description="(C, H, W) in [0, 1]; the model normalises itself")
    defense: str
    codec: str
    codec_state: dict[str, Any] = {}
    noise: Tensor | None = Field(default=None, description="standard normal input of the edge graph, fresh per request")
    input: Tensor
    features: Tensor
    output: Tensor
    contract: str = Field(description="hash of everything that must be the same on both sides")
    task_accuracy: float | None = None
    files: dict[str, str] = Field(default={}, description="SHA-256 of every other file")
    versions: dict[str, str] = {}
