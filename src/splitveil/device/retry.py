"""`Retry` and `RetryBudget`: how often a request is tried again, how long apart, and how much of it in all."""

import random
import threading
from dataclasses import dataclass, field

from splitveil.core.errors import InputError

_jitter = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Retry:
    """What a device does when a request is lost or the server is busy.

    Pauses grow twofold, half of each is random, so that devices that lost the same server do not return together.
    Beside `attempts`, which bounds one request, a budget bounds all of them: each request earns `ratio` of a retry and
    at most `reserve` are kept, so that a server in trouble gets little more than ``1 + ratio`` times the load (after
    Google's SRE book, 2016, chapter 21; the numbers are ours).

    Args:
        attempts: for one request, the first included.
        first: seconds before the second attempt, at most.
        longest: seconds before any attempt, at most.
        ratio: retries that one request earns.
        reserve: retries that may be saved up, and are there at the start.
        patience: seconds after which one attempt is given up for another, of the request's whole timeout; None for all
            of it. Worth setting where several servers stand behind the device: one of them may hang.

    Raises:
        InputError: numbers that make no sense.
    """

    attempts: int = 5
    first: float = 0.1
    longest: float = 2.0
    ratio: float = 0.2
    reserve: float = 10.0
    patience: float | None = None

    def __post_init__(self) -> None:
        positive = self.attempts >= 1 and 0 < self.first <= self.longest and self.ratio >= 0 and self.reserve >= 0
        if not positive or (self.patience is not None and self.patience <= 0):
            raise InputError(
                f"expected attempts >= 1, 0 < first <= longest, ratio and reserve >= 0, patience > 0, got {self}; "
                "use Retry()."
            )

    def pause(self, attempt: int) -> float:
        """Seconds after the failure of that attempt, counted from 1."""
        whole = min(self.longest, self.first * 2.0 ** (attempt - 1))
        return whole * _jitter.uniform(0.5, 1)


@dataclass(slots=True)
class RetryBudget:
    """Retries that are left to one device; thread-safe."""

    rules: Retry
    left: float = field(init=False)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self.left = self.rules.reserve

    def earn(self) -> None:
        """A new request was made."""
        with self._lock:
            self.left = min(self.rules.reserve, self.left + self.rules.ratio)

    def spend(self) -> bool:
        """Whether there is one more retry; it is then gone."""
        with self._lock:
            if self.left < 1:
                return False
            self.left -= 1
            return True
