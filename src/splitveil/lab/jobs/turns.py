"""`Turns`: who begins a job next where more are asked for than there are workers."""

import threading
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Pace:
    """How long the jobs of one flow take. longest: in seconds, so far."""

    longest: float = 0.0


PACE: ContextVar[Pace | None] = ContextVar("pace", default=None)
"""Of the flow under way; flows within flows have that of the outermost."""


class Turns:
    """Counts jobs that run. Of those that wait the one whose flow has the longest jobs goes first.

    A flow asks for one job after another, so that whoever waits in it is what all ends with, the longer its jobs are
    the more so. Who has been told to wait counts until it asks again or withdraws.

    Attributes:
        changed: notified when a worker is free.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._busy, self._alone = 0, False
        self._waiting: dict[int, float] = {}

    def mine(self, who: int, pace: Pace, slots: int, *, alone: bool) -> bool:
        """Whether `who` may begin now; the lock is held. alone: only where nothing else runs."""
        full = self._busy >= slots or self._alone or (alone and self._busy > 0)
        if full or any(other > pace.longest for key, other in self._waiting.items() if key != who):
            self._waiting[who] = pace.longest
            return False
        self._waiting.pop(who, None)
        return True

    def begin(self, *, alone: bool) -> None:
        """A job does; the lock is held."""
        self._busy += 1
        self._alone = alone

    def end(self) -> None:
        """A job is over."""
        with self.changed:
            self._busy -= 1
            self._alone = False
            self.changed.notify_all()

    def withdraw(self, who: Iterable[int]) -> None:
        """These wait no more."""
        with self.changed:
            for key in who:
                self._waiting.pop(key, None)
            self.changed.notify_all()
