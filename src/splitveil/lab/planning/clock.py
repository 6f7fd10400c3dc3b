"""A plan's time limit: how long it may take, and what each kind of work has taken so far."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

SEARCH, PROXIES = 0.7, 0.25
"""Shares of the time: after the one no further choice is measured; proxies take the other at most."""
FRESH = 4.0
"""Times that a fresh audit takes what a quick one does, until one was timed. Ours: one to eight were seen."""


class Clock:
    """Time since it was made.

    Args:
        minutes: in all; None for no limit. What is under way is ended, so that a plan may take a little longer.
    """

    def __init__(self, minutes: float | None) -> None:
        self.limit = math.inf if minutes is None else 60 * minutes
        self._begun = time.perf_counter()
        self._taken = dict[str, list[float]]()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.perf_counter() - self._begun

    @contextmanager
    def timing(self, kind: str) -> Iterator[None]:
        """Note how long what is inside takes."""
        begun = time.perf_counter()
        yield
        self.note(kind, time.perf_counter() - begun)

    def note(self, kind: str, seconds: float) -> None:
        """Note how long something took."""
        self._taken.setdefault(kind, []).append(seconds)

    def expected(self, kind: str) -> float:
        """Seconds that the longest piece of this kind took; 0 where there was none."""
        return max(self._taken.get(kind, ()), default=0.0)

    def spent(self, kind: str) -> float:
        """Seconds that all pieces of this kind took."""
        return sum(self._taken.get(kind, ()))

    def timed(self, kind: str) -> int:
        """Pieces of this kind."""
        return len(self._taken.get(kind, ()))

    def proxies_fit(self) -> bool:
        """Whether another proxy may be taken."""
        return (
            self.spent("proxy") <= PROXIES * self.limit and self.seconds + self.expected("proxy") <= SEARCH * self.limit
        )

    def search_fits(self) -> bool:
        """Whether another choice may be measured, so that a fresh audit still fits after it."""
        reserve = max(FRESH * self.expected("audit"), (1 - SEARCH) * self.limit if math.isfinite(self.limit) else 0.0)
        return self.seconds + self.expected("measure") + reserve <= self.limit

    def fresh_fits(self) -> bool:
        """Whether another fresh audit may be begun."""
        return self.fits(self.expected("fresh") or FRESH * self.expected("audit"))

    def fits(self, seconds: float) -> bool:
        """Whether work of this length ends in time."""
        return self.seconds + seconds <= self.limit
