"""`ServingRun`: the record of one run of the speed benchmark, as it lies in docs/results/serving.jsonl."""

from typing import ClassVar

from splitveil.core.records.base import Document, Record


class Window(Record):
    """One server under one load for a second or two, between two windows of the bare engine.

    Attributes:
        server, protocol: who was asked and how; `model` is ``resnet18`` or ``no-op``.
        concurrency: connections, each with one request of one row at a time.
        answers: after the warm-up; `failed`: without the right status or size, warm-up included.
        rows_per_second, p50_ms, p99_ms: of `answers`.
        cpu_ms: of processor time that the server's processes took for one request.
        wire_bytes: over loopback in both directions for one request, TCP and IP included; None outside a namespace.
        bare_rows_per_second, bare_p50_ms, bare_cpu_ms: of bare onnxruntime at batch `concurrency`, mean of the two
            windows around.
    """

    model: str
    server: str
    protocol: str
    concurrency: int
    round: int
    answers: int
    failed: int
    rows_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    wire_bytes: float | None
    bare_rows_per_second: float | None
    bare_p50_ms: float | None
    bare_cpu_ms: float | None


class BareWindow(Record):
    """onnxruntime alone in a process of its own, one thread. p50_ms, cpu_ms: of one batch and of one row."""

    batch: int
    round: int
    rows_per_second: float
    p50_ms: float
    cpu_ms: float


class Process(Record):
    """One server's processes.

    Attributes:
        start_seconds: from spawn to the first right answer, one for each start, files in the page cache.
        start_cpu_seconds: of processor time until then.
        pss_mb, rss_mb: of all its processes, after the start and after the load; MB are 2**20 bytes.
    """

    model: str
    server: str
    version: str
    start_seconds: list[float]
    start_cpu_seconds: list[float]
    processes: int
    pss_mb: float
    rss_mb: float
    pss_after_mb: float | None
    rss_after_mb: float | None


class DeviceImport(Record):
    """``from splitveil.device import Edge`` in fresh interpreters where torch cannot be imported."""

    seconds: list[float]
    cpu_seconds: list[float]


class ServingRun(Document):
    """Everything that one run of the benchmark measured."""

    kind: ClassVar[str] = "serving"

    date: str
    hardware: dict[str, str]
    versions: dict[str, str]
    generator: str
    isolated: bool
    feature_bytes: int
    rounds: int
    window_seconds: float
    warmup_seconds: float
    load_averages: list[float]
    windows: list[Window]
    bare: list[BareWindow]
    processes: list[Process]
    device_import: DeviceImport
    left_out: dict[str, str]
