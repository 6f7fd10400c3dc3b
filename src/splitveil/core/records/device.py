"""A device and a link, as a planner sees them."""

from typing import ClassVar

from pydantic import Field

from splitveil.core.records.base import Document, Record


class Timing(Record):
    """Latency of one graph on one device. Seconds of one call, after the warm-up."""

    graph: str
    macs: int = Field(description="multiply-accumulates of one sample; 0 where unknown")
    median: float
    p95: float
    runs: int
    batch: int = Field(default=1, description="samples of one call")
    threads: int = 1
    sha256: str = Field(default="", description="of the graph's file: the same weights, not only the same layers")
    file_bytes: int = Field(default=0, description="of the graph's file; 0 where unknown")
    peak_rss_bytes: int | None = Field(
        default=None, description="most memory of the process until then, interpreter and all it did before included"
    )


class NodeTime(Record):
    """What one node of a graph takes, as ONNX Runtime runs it: fused and re-ordered, under names of its own."""

    name: str
    op: str
    seconds: float = Field(description="median of one run")
    share: float = Field(description="of the sum over all nodes; what lies between nodes is in none")


class PictureSize(Record):
    """Bytes of pictures in one file format."""

    form: str = Field(description="png, jpeg q95, jpeg q75")
    median: float
    p95: float
    n: int


class Device(Document):
    """What runs the edge half."""

    kind: ClassVar[str] = "device"

    name: str
    macs_per_second: float = Field(description="fp32 convolution with ONNX Runtime, as the reference graph measures it")
    threads: int = 1
    memory_bytes: int | None = None
    storage_bytes: int | None = None
    source: str = Field(description="measured, with the date and command, or where a preset's figures are from")
    hardware: str = ""
    timings: list[Timing] = []
    versions: dict[str, str] = {}


class Link(Document):
    """A way from device to server."""

    kind: ClassVar[str] = "link"

    name: str
    bandwidth_bits: float = Field(gt=0, description="usable bits a second upwards")
    rtt_seconds: float = Field(ge=0, description="of an empty request and its answer, lost packets included")
    loss: float = Field(default=0.0, ge=0, lt=1, description="share of packets that are lost")
    source: str = "given"
