"""``kill -9`` in mid-load, again and again: whether devices recover, and whether anything wrong is ever returned."""

import statistics
import threading
import time
from collections import Counter
from random import Random

from splitveil.core.errors import LinkError
from splitveil.core.progress import task
from splitveil.device import Edge
from splitveil.lab.seeds import derive
from tests.faults.exact import Exact
from tests.faults.finding import Finding
from tests.faults.process import Victim

CLIENTS, ROWS = 6, 3
PATIENCE = 60.0
"""Seconds in which every client must have an answer again."""
STRIDE = 2**20


class Device(threading.Thread):
    """Asks one unique question after the other through its own `Edge` and checks every answer."""

    def __init__(self, exact: Exact, target: str, number: int, stop: threading.Event) -> None:
        super().__init__(name=f"device-{number}", daemon=True)
        self._exact, self._target, self._number, self._stop_asking = exact, target, number, stop
        self.counts: Counter[str] = Counter()
        self.latest = 0.0
        """When the latest right answer came, by the monotonic clock."""
        self.odd: set[str] = set()
        """Names of errors that are no `LinkError`."""

    def run(self) -> None:
        with Edge(self._exact.bundle, self._target, timeout=20) as edge:
            for turn in range(STRIDE):
                if self._stop_asking.is_set():
                    return
                z = self._exact.questions(STRIDE * self._number + turn, ROWS)
                try:
                    right = self._exact.right(z, edge.send(z))
                except LinkError:
                    self.counts["failed"] += 1
                    continue
                except Exception as error:
                    self.odd.add(type(error).__name__)
                    continue
                self.counts["right" if right else "wrong"] += 1
                self.latest = time.monotonic()


def kill_again_and_again(exact: Exact, kills: int, seed: int = 0) -> Finding:
    """Kill the server `kills` times under the load of six devices, and restart it on the same port each time."""
    random, stop = Random(derive(seed, "kills")), threading.Event()
    failures: list[str] = []
    down: list[float] = []
    back: list[float] = []
    begun = time.perf_counter()
    server = Victim(exact.bundle)
    ports = "--grpc-port", str(server.grpc_port), "--http-port", str(server.http_port)
    devices = [Device(exact, server.target, number, stop) for number in range(CLIENTS)]
    try:
        for device in devices:
            device.start()
        if not _all_answered(devices, 0.0):
            failures.append("Not every device got an answer from the first server.")
        with task("kill -9", kills) as show:
            for count in range(kills):
                time.sleep(random.uniform(0.1, 0.6))
                server.end()
                killed = time.monotonic()
                time.sleep(random.uniform(0, 0.5))
                server = Victim(exact.bundle, *ports)
                ready = time.monotonic()
                down.append(ready - killed)
                if not _all_answered(devices, ready):
                    failures.append(f"After kill {count + 1} not every device got an answer within {PATIENCE:g} s.")
                    break
                back.append(time.monotonic() - ready)
                show(count + 1)
    finally:
        stop.set()
        for device in devices:
            device.join(PATIENCE)
        server.end()
    counts = sum((device.counts for device in devices), Counter[str]())
    odd = sorted(set().union(*(device.odd for device in devices)))
    if counts["wrong"]:
        failures.append(f"{counts['wrong']} wrong answers.")
    if odd:
        failures.append(f"Errors other than LinkError: {', '.join(odd)}.")
    if any(device.is_alive() for device in devices):
        failures.append("A device hung.")
    return Finding(
        title="kill -9 in mid-load",
        ran=f"{len(down)} times SIGKILL under the load of {CLIENTS} devices (`Edge`, one unique question of {ROWS} "
        "rows after "
        f"the other), restart on the same ports, in {time.perf_counter() - begun:.0f} s.",
        columns=("right answers", "wrong answers", "calls that failed with LinkError", "other errors"),
        rows=((*(f"{counts[what]:,}" for what in ("right", "wrong", "failed")), str(len(odd))),),
        notes=(
            f"The server was away for {_spread(down)} each time; once it was ready all devices had an answer again "
            "after "
            f"{_spread(back)} (median and most).",
        ) if back else (),
        failures=tuple(failures),
    )  # fmt: skip


def _all_answered(devices: list[Device], since: float) -> bool:
    until = time.monotonic() + PATIENCE
    while any(device.latest <= since for device in devices):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f} s, at most {max(seconds):.1f} s"
