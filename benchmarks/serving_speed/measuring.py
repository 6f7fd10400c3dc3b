"""The run of the speed benchmark: servers take turns, each window between two of the bare engine."""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.serving_speed import load
from benchmarks.serving_speed.bare import Bare
from benchmarks.serving_speed.contestants import BUILDERS, Contestant, splitveil_server
from benchmarks.serving_speed.isolation import loopback_bytes
from benchmarks.serving_speed.peers import installed
from benchmarks.serving_speed.processes import Running, close
from benchmarks.serving_speed.records import BareWindow, DeviceImport, Process, Window
from benchmarks.serving_speed.subject import FEATURES
from benchmarks.serving_speed.wire import Array
from splitveil.wire.bundle import CLOUD, Bundle
from splitveil.wire.engine import load_cloud

IMPORT = """
import sys, time
sys.modules["torch"] = None
cpu, start = time.process_time(), time.perf_counter()
from splitveil.device import Edge
print(time.perf_counter() - start, time.process_time() - cpu)
"""


@dataclass(frozen=True)
class Schedule:
    """How long everything takes. window, warmup, bare: seconds; starts of our own server and of a peer."""

    rounds: int = 5
    window: float = 1.5
    warmup: float = 0.3
    bare: float = 0.8
    concurrencies: tuple[int, ...] = (1, 8, 32)
    starts: int = 5
    peer_starts: int = 2


@dataclass
class Findings:
    """What has been measured so far."""

    windows: list[Window] = field(default_factory=list)
    bare: list[BareWindow] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    load_averages: list[float] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass
class Served:
    """A running contestant and the sizes of its answers by protocol."""

    contestant: Contestant
    running: Running
    answer_bytes: dict[str, int]


class Measurement:
    """Everything about one bundle.

    Args:
        bundle: with features of `FEATURES`.
        model: what the records call it.
        schedule: how long.
        isolated: whether this is a network of its own.
        work: for logs and repositories.
        tell: told what is being done.
    """

    def __init__(
        self, bundle: Bundle, model: str, schedule: Schedule, isolated: bool, work: Path, tell: Callable[[str], None]
    ) -> None:
        self.bundle, self.model, self.schedule, self.isolated = bundle, model, schedule, isolated
        self.work, self.tell = work, tell
        self.z: Array = np.random.default_rng(0).standard_normal((1, *FEATURES), dtype=np.float32)
        self.expected = load_cloud(bundle).run({bundle.manifest.features.name: self.z})[0]

    def run(self, peers: Path | None, names: Sequence[str], found: Findings) -> None:
        """Measure ours and the named peers into `found`; a peer that does not run is left out with the reason."""
        alone: list[Contestant] = []
        with ExitStack() as stack:
            beside = [self._ours(stack, found)]
            for name in names:
                contestant = self._peer(name, peers, found)
                if contestant is None:
                    continue
                if contestant.alone:
                    alone.append(contestant)
                elif served := self._tried(stack, contestant, found):
                    beside.append(served)
            self._rounds(beside, found)
            self._memory_after(beside, found)
        for contestant in alone:
            with ExitStack() as stack:
                if served := self._tried(stack, contestant, found):
                    self._rounds([served], found)
                    self._memory_after([served], found)

    def _ours(self, stack: ExitStack, found: Findings) -> Served:
        return self._started(stack, splitveil_server(self.bundle, self.z, self.work), self.schedule.starts, found)

    def _peer(self, name: str, peers: Path | None, found: Findings) -> Contestant | None:
        if peers is None or not installed(peers, name):
            found.left_out[name] = "not installed"
            return None
        contestant = BUILDERS[name](self.bundle, self.z, self.work, peers)
        if contestant.exposed and not self.isolated:
            found.left_out[name] = "listens on all interfaces, and no network namespace could be made"
            return None
        return contestant

    def _tried(self, stack: ExitStack, contestant: Contestant, found: Findings) -> Served | None:
        try:
            return self._started(stack, contestant, self.schedule.peer_starts, found)
        except (RuntimeError, OSError, ValueError) as error:
            found.left_out[contestant.name] = str(error)[-600:]
            self.tell(f"{contestant.name} is left out: {error}")
            return None

    def _started(self, stack: ExitStack, contestant: Contestant, starts: int, found: Findings) -> Served:
        """Start it once for the page cache, then `starts` times; the last one stays."""
        self.tell(f"starting {contestant.name}")
        port, request = next(iter(contestant.asks.values()))
        log = self.work / f"{contestant.name.lower().replace(' ', '-')}-{self.model}.log"
        wall, cpu = [], []
        for attempt in range(starts + 1):
            running = Running(contestant.argv, contestant.environment, request, port, self.expected, log)
            if attempt:
                wall.append(running.start_seconds)
                cpu.append(running.start_cpu_seconds)
            if attempt < starts:
                running.stop()
        stack.callback(running.stop)
        sizes = {}
        for protocol, (port, request) in contestant.asks.items():
            logits, sizes[protocol] = request.ask(port)
            close(logits, self.expected)
        memory = running.memory()
        found.processes.append(
            Process(
                model=self.model, server=contestant.name, version=contestant.version, start_seconds=wall,
                start_cpu_seconds=cpu, processes=memory.processes, pss_mb=memory.pss_mb, rss_mb=memory.rss_mb,
                pss_after_mb=None, rss_after_mb=None,
            )
        )  # fmt: skip
        return Served(contestant, running, sizes)

    def _rounds(self, servers: list[Served], found: Findings) -> None:
        turns = [(served, protocol) for served in servers for protocol in served.contestant.asks]
        with Bare(self.bundle.folder / CLOUD) as bare:
            for number in range(self.schedule.rounds):
                found.load_averages.append(os.getloadavg()[0])
                self.tell(f"{self.model}: round {number + 1} of {self.schedule.rounds}")
                for concurrency in self.schedule.concurrencies:
                    limit = bare.window(concurrency, self.schedule.bare, number)
                    limits, windows = [limit], []
                    # Forth and back in turn, so that nobody always comes first.
                    for served, protocol in turns if number % 2 == 0 else reversed(turns):
                        windows.append(self._window(served, protocol, concurrency, number))
                        limits.append(bare.window(concurrency, self.schedule.bare, number))
                    found.windows += [beside(w, a, b) for w, (a, b) in zip(windows, pairwise(limits), strict=True)]
                    if self.model == "resnet18":
                        found.bare += limits

    def _window(self, served: Served, protocol: str, concurrency: int, number: int) -> Window:
        port, request = served.contestant.asks[protocol]
        spent, carried = served.running.cpu_seconds(), loopback_bytes() if self.isolated else 0
        got = load.press(
            request, port, concurrency, self.schedule.window, self.schedule.warmup, served.answer_bytes[protocol]
        )
        spent = served.running.cpu_seconds() - spent
        carried = loopback_bytes() - carried if self.isolated else 0
        return Window(
            model=self.model, server=served.contestant.name, protocol=protocol, concurrency=concurrency, round=number,
            answers=got.answers, failed=got.failed, rows_per_second=got.rate, p50_ms=got.p50_ms, p99_ms=got.p99_ms,
            cpu_ms=1000 * spent / max(1, got.total), wire_bytes=carried / max(1, got.total) if self.isolated else None,
            bare_rows_per_second=None, bare_p50_ms=None, bare_cpu_ms=None,
        )  # fmt: skip

    def _memory_after(self, servers: list[Served], found: Findings) -> None:
        for served in servers:
            memory = served.running.memory()
            found.processes = [
                p.model_copy(update={"pss_after_mb": memory.pss_mb, "rss_after_mb": memory.rss_mb})
                if (p.model, p.server) == (self.model, served.contestant.name)
                else p
                for p in found.processes
            ]


def device_import(times: int) -> DeviceImport:
    """What a device waits for before it can ask, without torch; the first import, which fills caches, is dropped."""
    took = []
    for _ in range(times + 1):
        told = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout
        took.append([float(part) for part in told.split()])
    return DeviceImport(seconds=[wall for wall, _ in took[1:]], cpu_seconds=[cpu for _, cpu in took[1:]])


def beside(window: Window, before: BareWindow, after: BareWindow) -> Window:
    """The window with the mean of the bare windows around it."""
    return window.model_copy(
        update={
            "bare_rows_per_second": statistics.fmean((before.rows_per_second, after.rows_per_second)),
            "bare_p50_ms": statistics.fmean((before.p50_ms, after.p50_ms)),
            "bare_cpu_ms": statistics.fmean((before.cpu_ms, after.cpu_ms)),
        }
    )
