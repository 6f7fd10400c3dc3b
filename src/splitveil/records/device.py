"""A device and a link, as a planner sees them."""

from typing import ClassVar

from pydantic import Field

from splitveil.records.base import Document, Record


class Timing(Record):
    """Latency of one graph on one device. Seconds of one call with one sample, after the warm-up."""

    graph: str
    macs: int = Field(description="multiply-accumulates of one sample; 0 where unknown")
    median: float
    p95: float
    runs: int


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
    rtt_seconds: float = Field(ge=0, description="of an empty request and its answer")
    loss: float = Field(default=0.0, ge=0, lt=1, description="share of packets that are lost")
    source: str = "given"
