"""`Arrivals`: calls whose message is on its way, with a deadline, and who leaves first when there are too many."""

import asyncio
from typing import Any

from splitveil.server.refusal import Reason, RefusedError

MOST = 1024
"""Calls that may wait for their message at a time; those that have sent it wait in the model's queue instead."""


class Arrivals:
    """Room for `most` calls. One more makes the oldest of the address with the most of them give up its place.

    So whoever opens calls and sends nothing drives out its own, while a client that sends its message at once needs a
    place for milliseconds only. The rule is ours; it is what servers do with idle connections when none are left.

    Args:
        seconds: that a message may take.
        most: calls.
    """

    def __init__(self, seconds: float, most: int = MOST) -> None:
        self._seconds, self._most = seconds, most
        self._by_address: dict[str, dict[int, asyncio.Timeout]] = {}
        self._next = 0
        self.waiting = 0
        """Calls whose message has not come."""

    async def message(self, context: Any) -> Any:
        """The message of this call, as gRPC gives it: bytes, or its mark for the end of a stream without one.

        Raises:
            RefusedError: it did not come in time, or others needed the place.
        """
        address = context.peer().rpartition(":")[0]
        self._next += 1
        ticket = self._next
        seats = self._by_address.setdefault(address, {})
        try:
            async with asyncio.timeout(self._seconds) as deadline:
                seats[ticket] = deadline
                self.waiting += 1
                if self.waiting > self._most:
                    self._give_up_one()
                return await context.read()
        except TimeoutError:
            raise RefusedError(Reason.SLOW, "the request did not arrive in time; send it faster.") from None
        finally:
            if seats.pop(ticket, None) is not None:
                self.waiting -= 1
            if not seats and self._by_address.get(address) is seats:
                del self._by_address[address]

    def _give_up_one(self) -> None:
        heaviest = max(self._by_address.values(), key=len)
        heaviest.pop(next(iter(heaviest))).reschedule(0)
        self.waiting -= 1
