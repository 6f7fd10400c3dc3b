"""Progress as lines, for logs and pipes: one for each task that ended, and one a minute while none does."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from splitveil.core.progress import Show

EVERY = 60.0
"""Seconds without a line after which one says what is under way."""
LOOKS = 5.0
"""Seconds between two looks at the clock where the work itself tells nothing."""


@dataclass(slots=True)
class Running:
    """A task that has begun."""

    what: str
    total: int
    begun: float
    done: int = 0
    note: str = ""


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Lines:
    """Lines on stderr: ``decoder at layer1: 120/600, 61 s, about 244 s left``.

    Args:
        clock: seconds that only grow.
        say: takes a line.
        every: seconds; see `EVERY`.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, say: Callable[[str], None] = _to_stderr,
        every: float = EVERY,
    ) -> None:  # fmt: skip
        self._clock, self._say, self._every = clock, say, every
        self._running: list[Running] = []
        self._spoke = clock()
        self._lock = threading.Lock()

    def task(self, what: str, total: int) -> Show:
        """Note the time."""
        running = Running(what, total, self._clock())
        with self._lock:
            if not self._running:
                self._spoke = running.begun
            self._running.append(running)

        def show(done: int, note: str = "") -> None:
            running.done, running.note = done, note
            self.look()

        return show

    def look(self) -> None:
        """Say what is under way, if nothing was said for so long; called by the work and by `watched`."""
        with self._lock:
            now = self._clock()
            if self._running and now - self._spoke >= self._every:
                self._spoke = now
                self._say(" > ".join(self._told(r, now) for r in self._running))

    def done(self, what: str, *, ended: bool = True) -> None:
        """Say how long it took, unless it broke off."""
        with self._lock:
            at = next(i for i in reversed(range(len(self._running))) if self._running[i].what == what)
            running, now = self._running.pop(at), self._clock()
            if ended:
                self._spoke = now
                self._say(f"{what}: {now - running.begun:.1f} s")

    def _told(self, running: Running, now: float) -> str:
        spent = now - running.begun
        said = [f"{running.done}/{running.total}"] * (running.total > 1) + [f"{spent:.0f} s"]
        if 0 < running.done < running.total:
            said.append(f"about {spent / running.done * (running.total - running.done):.0f} s left")
        return f"{running.what}: {', '.join([*said, *([running.note] if running.note else [])])}"


@contextmanager
def watched(lines: Lines, seconds: float = LOOKS) -> Iterator[None]:
    """Look at the clock every few seconds in a thread of its own, for work that tells nothing for long."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(seconds):
            lines.look()

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
