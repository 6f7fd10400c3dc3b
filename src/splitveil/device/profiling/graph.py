"""How long an ONNX graph takes here, as a whole and node by node."""

import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from splitveil.core.errors import InputError
from splitveil.core.records.device import NodeTime, Timing
from splitveil.device.profiling.machine import peak_rss_bytes
from splitveil.device.profiling.work import macs_of

WARMUP, RUNS = 5, 50
DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}
NOISE = "noise"
"""Input that a stochastic defence draws from a standard normal."""
SUFFIX = "_kernel_time"
"""What ONNX Runtime's profiler puts behind a node's name."""


def time_graph(
    content: bytes | Path, *, threads: int = 1, warmup: int = WARMUP, runs: int = RUNS, batch: int = 1, name: str = ""
) -> Timing:
    """Time whole calls of a graph on the CPU.

    Its inputs are drawn once, from a fixed seed: how long a dense graph takes does not depend on what they hold.

    Args:
        content: the graph, or its file.
        threads: for one call.
        warmup: calls that are not counted.
        runs: calls that are, more than 20 for a 95th percentile that is not the maximum.
        batch: samples of one call.
        name: under which the timing is kept; the file's name where none is given.

    Raises:
        InputError: onnxruntime cannot run it, no run, or inputs that cannot be drawn.
    """
    _refuse(threads, warmup, runs, batch)
    session = _session(content, _options(threads))
    inputs = _draw(session, batch)
    seconds = []
    for k in range(warmup + runs):
        start = time.perf_counter()
        _run(session, inputs)
        if k >= warmup:
            seconds.append(time.perf_counter() - start)
    # Before anything else takes memory.
    peak = peak_rss_bytes()
    del session
    raw = content if isinstance(content, bytes) else content.read_bytes()
    return Timing(
        graph=name or ("graph" if isinstance(content, bytes) else content.name),
        macs=graph_macs(content),
        median=float(np.median(seconds)),
        p95=float(np.quantile(seconds, 0.95, method="higher")),
        runs=runs,
        batch=batch,
        threads=threads,
        sha256=hashlib.sha256(raw).hexdigest(),
        file_bytes=len(raw),
        peak_rss_bytes=peak,
    )


def by_node(
    content: bytes | Path, *, threads: int = 1, warmup: int = WARMUP, runs: int = RUNS, batch: int = 1
) -> list[NodeTime]:
    """What each node takes, by ONNX Runtime's own profiler, slowest first.

    Its clock counts whole microseconds, and its notes slow the graph down: read shares here, latencies in `time_graph`.
    Arguments and errors are those of `time_graph`.
    """
    _refuse(threads, warmup, runs, batch)
    durations: dict[tuple[str, str], list[float]] = {}
    for event in _events(content, _options(threads), warmup + runs, batch):
        durations.setdefault((event["name"].removesuffix(SUFFIX), event["args"]["op_name"]), []).append(event["dur"])
    medians = {}
    for (node, op), found in durations.items():
        if len(found) % (warmup + runs):
            raise InputError(f"node {node!r} does not run equally often in every call; time the whole graph instead.")
        # A node inside a loop, or one of several without a name, runs more than once a call.
        calls = np.array(found).reshape(warmup + runs, -1).sum(1)[warmup:]
        medians[node, op] = float(np.median(calls)) * 1e-6
    total = sum(medians.values())
    if total <= 0:
        raise InputError("no node takes a whole microsecond; give a larger graph or a larger batch.")
    nodes = [NodeTime(name=node, op=op, seconds=s, share=s / total) for (node, op), s in medians.items()]
    return sorted(nodes, key=lambda node: -node.seconds)


def graph_macs(content: bytes | Path) -> int:
    """Multiply-accumulates of one sample, from the shapes that one unoptimised run meets; 0 where they are unknown.

    Counted are convolutions, linear layers and matrix products, as in `Cut`.

    Raises:
        InputError: as `time_graph`.
    """
    options = _options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # A packed weight has no shape in the profile.
    options.add_session_config_entry("session.disable_prepacking", "1")
    counts = [macs_of(event["args"]) for event in _events(content, options, 1, None)]
    return 0 if None in counts else sum(count or 0 for count in counts)


def _events(content: bytes | Path, options: Any, calls: int, batch: int | None) -> list[dict[str, Any]]:
    """The profiler's entries of all nodes over some calls; its file is deleted."""
    options.enable_profiling = True
    with tempfile.TemporaryDirectory(prefix="splitveil-profile-") as folder:
        options.profile_file_prefix = str(Path(folder) / "nodes")
        session = _session(content, options)
        inputs = _draw(session, batch)
        try:
            for _ in range(calls):
                _run(session, inputs)
        finally:
            path = Path(session.end_profiling())
        found: list[dict[str, Any]] = json.loads(path.read_bytes())
    return [e for e in found if e.get("cat") == "Node" and e["name"].endswith(SUFFIX)]


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return options


def _session(content: bytes | Path, options: Any) -> Any:
    source = content if isinstance(content, bytes) else str(content)
    try:
        return onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # onnxruntime's own exceptions share no base
        what = "the graph" if isinstance(content, bytes) else str(content)
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"onnxruntime {onnxruntime.__version__} cannot load {what} ({reason}); give an ONNX graph that it runs."
        ) from None


def _run(session: Any, inputs: dict[str, NDArray[Any]]) -> None:
    try:
        session.run(None, inputs)
    except Exception as error:  # as above
        reason = str(error).partition("\n")[0]
        raise InputError(f"onnxruntime cannot run the graph ({reason}); give one that takes random inputs.") from None


def _draw(session: Any, batch: int | None) -> dict[str, NDArray[Any]]:
    """Random inputs; `batch` None: one sample, or as many as the graph is fixed to."""
    rng = np.random.default_rng(0)
    found: dict[str, NDArray[Any]] = {}
    for given in session.get_inputs():
        if given.type not in DTYPES:
            raise InputError(f"input {given.name!r} is a {given.type}, expected {', '.join(DTYPES)}; export it so.")
        found[given.name] = _values(rng, given.name, DTYPES[given.type], _shape(given.name, given.shape, batch))
    return found


def _shape(name: str, axes: Sequence[int | str | None], batch: int | None) -> tuple[int, ...]:
    free = [k for k, size in enumerate(axes) if not isinstance(size, int)]
    if any(k > 0 for k in free):
        raise InputError(f"input {name!r} has shape {list(axes)}, expected only the batch to be free; fix the others.")
    if axes and not free and batch is not None and axes[0] != batch:
        raise InputError(f"input {name!r} is fixed to batches of {axes[0]}, got {batch}; use batch {axes[0]}.")
    return tuple(size if isinstance(size, int) else batch or 1 for size in axes)


def _values(rng: np.random.Generator, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
    if dtype is np.uint8:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if np.issubdtype(dtype, np.floating):
        drawn = rng.standard_normal(shape) if name == NOISE else rng.random(shape)
        return np.asarray(drawn, dtype=dtype)
    # 0 or 1 is a valid index into any table of two rows.
    return np.asarray(rng.integers(0, 2, shape), dtype=dtype)


def _refuse(threads: int, warmup: int, runs: int, batch: int) -> None:
    if min(threads, runs, batch) < 1 or warmup < 0:
        raise InputError(
            f"expected 1 thread, run and sample or more and a warm-up of 0 or more, got {threads}, {runs}, {batch} and "
            f"{warmup}; use 1, {RUNS}, 1 and {WARMUP}."
        )
