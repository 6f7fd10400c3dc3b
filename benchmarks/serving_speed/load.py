"""Load by h2load, which is written in C, so that two cores suffice for it and a server."""

import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.serving_speed.wire import Request
from splitveil.core.errors import MissingExtraError


class Served(NamedTuple):
    """Answers after the warm-up, failures in all, latencies in ms, rate a second, requests in all."""

    answers: int
    failed: int
    p50_ms: float
    p99_ms: float
    rate: float
    total: int


def generator() -> str:
    """h2load's own words on its version.

    Raises:
        MissingExtraError: there is none.
    """
    found = shutil.which("h2load")
    if found is None:
        raise MissingExtraError("the benchmark needs h2load; apt-get install nghttp2-client.")
    return subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def press(request: Request, port: int, concurrency: int, seconds: float, warmup: float, answer_bytes: int) -> Served:
    """Keep `concurrency` connections busy with one request each.

    Args:
        request: to send again and again.
        port: on loopback.
        concurrency: connections.
        seconds: that count.
        warmup: seconds before them that do not.
        answer_bytes: body of a good answer; gRPC's failures have status 200 and none.
    """
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(request.body)
        headers = [part for k, v in request.headers.items() for part in ("-H", f"{k}: {v}")]
        kind = [] if request.grpc else ["--h1"]
        told = subprocess.run(
            ["h2load", *kind, f"-c{concurrency}", "-m1", "-t1", f"-D{round(1000 * (seconds + warmup))}ms",
             f"--log-file={log}", "-d", str(body), *headers, f"http://127.0.0.1:{port}{request.path}"],
            capture_output=True, text=True, check=True, timeout=60 + 10 * seconds,
        ).stdout  # fmt: skip
        lines = [tuple(map(int, line.split("\t")[:3])) for line in log.read_text().splitlines()]
    return judged(lines, warmup, _data_bytes(told), answer_bytes)


def judged(lines: Sequence[tuple[int, ...]], warmup: float, received: int, answer_bytes: int) -> Served:
    """What the log says: (start in us, status, us to the end) of each request; and bytes of bodies received in all."""
    failed = sum(status != 200 for _, status, _ in lines)
    short = len(lines) - received // answer_bytes
    begin = min((start for start, _, _ in lines), default=0) + 1e6 * warmup
    ends = [start + took for start, _, took in lines]
    # By the end of an answer: so a slow one that began in the warm-up counts where its work was done.
    counted = sorted(
        took / 1000 for (_, status, took), end in zip(lines, ends, strict=True) if status == 200 and end >= begin
    )
    if len(counted) < 2:
        return Served(0, max(failed, short), float("nan"), float("nan"), 0.0, len(lines))
    passed = (max(ends) - begin) / 1e6
    p99 = counted[min(len(counted) - 1, int(0.99 * len(counted)))]
    rate = len(counted) / passed
    return Served(len(counted), max(failed, short), statistics.median(counted), p99, rate, len(lines))


def _data_bytes(told: str) -> int:
    """From ``traffic: 3.2MB (3361234) total, 12KB (12000) headers (space savings ...), 3.1MB (3300000) data``."""
    found = re.search(r"\((\d+)\) data", told)
    return int(found.group(1)) if found else 0
