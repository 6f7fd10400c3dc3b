"""The limit: bare onnxruntime in a process of its own that runs a batch over and over when it is told to.

As a script: reads ``BATCH SECONDS`` lines, answers each with one line of JSON.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnxruntime

from benchmarks.serving_speed.records import BareWindow


class Bare:
    """``with Bare(cloud.onnx) as bare: bare.window(...)``."""

    def __init__(self, graph: Path) -> None:
        self._graph = graph

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serving_speed.bare", str(self._graph)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def window(self, batch: int, seconds: float, number: int) -> BareWindow:
        """Run batches for so long. number: of the round."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{batch} {seconds}\n")
        self._process.stdin.flush()
        return BareWindow(batch=batch, round=number, **json.loads(self._process.stdout.readline()))


def main() -> None:
    """Load the graph, then obey."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(sys.argv[1], options, ["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    rows: dict[int, Any] = {}
    for line in sys.stdin:
        batch, seconds = int(line.split()[0]), float(line.split()[1])
        if batch not in rows:
            rows[batch] = np.random.default_rng(0).standard_normal((batch, *given.shape[1:]), dtype=np.float32)
        session.run(None, {given.name: rows[batch]})
        took: list[float] = []
        cpu, start = time.process_time(), time.perf_counter()
        while time.perf_counter() - start < seconds:
            before = time.perf_counter()
            session.run(None, {given.name: rows[batch]})
            took.append(time.perf_counter() - before)
        spent, passed, count = time.process_time() - cpu, time.perf_counter() - start, batch * len(took)
        found = {
            "rows_per_second": count / passed,
            "p50_ms": 1000 * statistics.median(took),
            "cpu_ms": 1000 * spent / count,
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
