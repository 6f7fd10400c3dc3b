"""`Limits`: connections, bytes and seconds that one server spends on its clients at most."""

from dataclasses import dataclass, fields

from splitveil.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that keep one client, or many, from taking the server away from the others.

    Args:
        payload: bytes of one message; None for the largest that can be right, in binary, for the bundle.
        queue: rows that may wait for the model; more are told to come back later.
        connections: of each protocol.
        reserve: connections over HTTP beyond that, for questions after health, when all others are at work.
        handshake_seconds: for TLS, and for HTTP/2 to begin.
        read_seconds: for the head of a request, and again for its body, to arrive.
        request_seconds: from arrival to answer, where the client asks for no less.
        idle_seconds: that a connection may lie unused.
        drain_seconds: for requests in flight when the server is told to stop.
        test_seconds: for a bundle to be loaded, and for its golden features to be answered.

    Raises:
        InputError: a bound that is not positive.
    """

    payload: int | None = None
    queue: int = 1024
    connections: int = 512
    reserve: int = 16
    handshake_seconds: float = 5.0
    read_seconds: float = 20.0
    request_seconds: float = 30.0
    idle_seconds: float = 60.0
    drain_seconds: float = 30.0
    test_seconds: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise InputError(
                    f"expected a positive limit for {field.name}, got {value}; leave it out for the default."
                )
