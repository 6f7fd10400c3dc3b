"""A handle on the server under test."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

import splitveil
from splitveil.wire.bundle import Bundle

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PATH": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(splitveil.__file__).parents[1])}
"""The server runs the code that its tests run."""
MEGABYTE = 2**20


class Victim:
    """A server in a process of its own; leaving it kills it, if it still runs.

    Args:
        bundle: to serve.
        options: of the `victim` program.
    """

    def __init__(self, bundle: Bundle, *options: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.victim", str(bundle.folder), *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
            env=ENVIRONMENT,
        )  # fmt: skip
        try:
            told = self.read()
        except BaseException:
            self.end()
            raise
        self.grpc_port, self.http_port, self.metrics_port = int(told["grpc"]), int(told["http"]), int(told["metrics"])
        self._seen = psutil.Process(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def target(self) -> str:
        """For gRPC clients."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def memory(self) -> float:
        """Resident MB."""
        return float(self._seen.memory_info().rss) / MEGABYTE

    @property
    def handles(self) -> int:
        """Open files and sockets."""
        return int(self._seen.num_fds())

    def read(self) -> dict[str, Any]:
        """The next line that it says.

        Raises:
            RuntimeError: it ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server ended with {self._process.wait(20)}")
        told: dict[str, Any] = json.loads(line)
        return told

    def write(self, text: str) -> None:
        """Lines for a gated model."""
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def tell(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Its exit code."""
        return self._process.wait(seconds)

    def end(self) -> None:
        """Kill it with SIGKILL and collect it."""
        self._process.kill()
        self._process.communicate(timeout=60)

    def metrics(self) -> dict[str, float]:
        """What Prometheus would read, by name with labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=20) as answer:
            text = answer.read().decode()
        return {name: float(value) for name, value in re.findall(r"^(splitveil\S*) (\S+)$", text, re.MULTILINE)}
