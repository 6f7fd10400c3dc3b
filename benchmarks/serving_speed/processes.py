"""A server as a process and its children: started, measured, stopped by their own ids."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from benchmarks.serving_speed.wire import Array, Request

PATIENCE = 120.0
"""Seconds for a server to answer."""
POLL = 0.005


class Memory(NamedTuple):
    """Processes, proportional and resident MB of all of them together."""

    processes: int
    pss_mb: float
    rss_mb: float


class Running:
    """A server that has given its first right answer.

    Args:
        argv: what to run; its output goes to `log`.
        request: to ask until it is answered with `expected` logits (K,).
        port: of that request.
        environment: beside our own.

    Raises:
        RuntimeError: it ended, or gave no right answer in two minutes; with the end of its log.
    """

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], request: Request, port: int, expected: Array,
        log: Path,
    ) -> None:  # fmt: skip
        start = time.perf_counter()
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **environment},
                start_new_session=True,
            )  # fmt: skip
        self._tree = psutil.Process(self._process.pid)
        try:
            self._await(request, port, expected, log)
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.perf_counter() - start
        self.start_cpu_seconds = self.cpu_seconds()

    def _await(self, request: Request, port: int, expected: Array, log: Path) -> None:
        until, why = time.monotonic() + PATIENCE, ""
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise RuntimeError(f"it ended with {self._process.returncode}: {_tail(log)}")
            try:
                close(request.ask(port)[0], expected)
                return
            except Exception as error:  # whatever a server that is not ready yet does to its client
                why = f"{type(error).__name__}: {error}"
                time.sleep(POLL)
        raise RuntimeError(f"no right answer in {PATIENCE:.0f} s ({why}): {_tail(log)}")

    def processes(self) -> list[psutil.Process]:
        """The process and its descendants."""
        return [self._tree, *self._tree.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """Processor time of all of them so far, and of children that ended."""
        spent = 0.0
        for process in self.processes():
            with suppress(psutil.Error):
                times = process.cpu_times()
                spent += times.user + times.system
                if process == self._tree:
                    spent += times.children_user + times.children_system
        return spent

    def memory(self) -> Memory:
        """Of all of them."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                full = process.memory_full_info()
                found.append((full.pss / 2**20, full.rss / 2**20))
        return Memory(len(found), sum(pss for pss, _ in found), sum(rss for _, rss in found))

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for what is left after ten seconds."""
        with suppress(psutil.Error):
            left = self.processes()
            self._process.send_signal(signal.SIGTERM)
            _, left = psutil.wait_procs(left, 10)
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
        self._process.wait()


def close(got: Array, expected: Array) -> None:
    """Make sure that logits are those expected.

    Raises:
        ValueError: they are not.
    """
    if got.size != expected.size or not np.allclose(got.ravel(), expected.ravel(), rtol=1e-3, atol=1e-3):
        raise ValueError("other logits than onnxruntime's here")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-1500:]
