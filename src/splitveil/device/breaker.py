"""`Breaker`: a circuit breaker, so that after some failures in a row nobody waits for a server that is gone."""

import threading
import time
from collections.abc import Callable
from typing import Literal

from splitveil.core.errors import InputError

State = Literal["closed", "open", "half-open"]


class Breaker:
    """Closed it lets requests pass; `failures` in a row open it, and after `rest` seconds one request may probe.

    That one closes it by an answer, or opens it for another rest. Thread-safe (after Nygard, Release It!, 2007).

    Args:
        failures: in a row.
        rest: seconds.
        clock: seconds, monotonic.

    Raises:
        InputError: no failure or no rest.
    """

    def __init__(self, failures: int = 5, rest: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        if failures < 1 or rest <= 0:
            raise InputError(f"expected failures >= 1 and rest > 0, got {failures} and {rest}; use Breaker().")
        self.failures, self.rest = failures, rest
        self._clock, self._lock = clock, threading.Lock()
        self._count, self._opened, self._probing = 0, None, False  # type: tuple[int, float | None, bool]

    @property
    def state(self) -> State:
        """``closed``, ``open``, or ``half-open`` when a probe is due or under way."""
        with self._lock:
            return self._state()

    @property
    def wait(self) -> float:
        """Seconds until a probe is due; 0 unless open."""
        with self._lock:
            return 0.0 if self._opened is None else max(0.0, self._opened + self.rest - self._clock())

    def admit(self) -> bool:
        """Whether a request may be sent; whoever sends it tells `passed`, `failed` or `gave_up`."""
        with self._lock:
            state = self._state()
            if state == "open" or (state == "half-open" and self._probing):
                return False
            self._probing = state == "half-open"
            return True

    def passed(self) -> None:
        """The server answered, be it a refusal."""
        with self._lock:
            self._count, self._opened, self._probing = 0, None, False

    def failed(self) -> bool:
        """No answer came; whether this opened it."""
        with self._lock:
            self._count += 1
            opens = self._probing or (self._opened is None and self._count >= self.failures)
            if opens:
                self._opened = self._clock()
            self._probing = False
            return opens

    def gave_up(self) -> None:
        """The device itself broke off: this says nothing about the server."""
        with self._lock:
            self._probing = False

    def _state(self) -> State:
        if self._opened is None:
            return "closed"
        return "half-open" if self._clock() >= self._opened + self.rest else "open"
