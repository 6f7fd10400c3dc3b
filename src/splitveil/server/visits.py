"""`Visits`: who is connected over HTTP, from which address and at what, and who leaves when there is no room left."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

WELCOME, PROBES_ONLY = "welcome", "probes only"
"""Keys of a request's state: the application sets one when it lets a request in; the other is of a reserved place."""


class Standing(IntEnum):
    """What a connection is at, in the order in which they leave."""

    STRANGE = 0
    """Nothing that needed leave was asked for yet: no handshake, no head, or a probe's question alone."""
    SENDING = 1
    """A body is on its way."""
    IDLE = 2
    """It was answered, and asks nothing now."""
    AT_WORK = 3
    """A whole request waits for its answer: it never leaves."""


@dataclass(eq=False, slots=True)
class Visit:
    """One connection, from the moment that it was accepted.

    Attributes:
        address: of the client, without its port.
        standing: asked for when room is needed.
        end: closes it at once.
        reserved: it came when there was no room, and may ask after health only.
    """

    address: str
    standing: Callable[[], Standing]
    end: Callable[[], None]
    reserved: bool = False


class Visits:
    """Room for `most` connections, and for `reserve` more when all of those are at work.

    Full, the least needed leaves for the next: by its `Standing`, then from the address with the most of that standing,
    the oldest. So silent connections, however many, push out each other (as nginx does with idle ones; the order is
    ours).
    """

    def __init__(self, most: int, reserve: int) -> None:
        self._most, self._reserve = most, reserve
        self._there: dict[Visit, None] = {}

    def __len__(self) -> int:
        return len(self._there)

    def come(self, visit: Visit) -> bool:
        """Take it in, in the place of another where there is none left; False if every place is needed."""
        if len(self._there) >= self._most:
            if (least := self._least()) is not None:
                self.go(least)
                least.end()
            elif len(self._there) >= self._most + self._reserve:
                return False
            visit.reserved = len(self._there) >= self._most
        self._there[visit] = None
        return True

    def go(self, visit: Visit) -> None:
        """Forget it."""
        self._there.pop(visit, None)

    def end_all(self, most: Standing = Standing.AT_WORK) -> None:
        """Close every one whose standing is `most` or less."""
        for visit in list(self._there):
            if visit.standing() <= most:
                visit.end()

    def _least(self) -> Visit | None:
        found: dict[Standing, list[Visit]] = {}
        for visit in self._there:
            found.setdefault(visit.standing(), []).append(visit)
        for standing in (Standing.STRANGE, Standing.SENDING, Standing.IDLE):
            if standing in found:
                counts = Counter(visit.address for visit in found[standing])
                heaviest = max(counts, key=counts.__getitem__)
                return next(visit for visit in found[standing] if visit.address == heaviest)
        return None
