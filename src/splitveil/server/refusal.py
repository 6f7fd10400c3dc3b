"""`Reason`: why a request is refused, with its gRPC status and its HTTP status."""

from enum import Enum

from splitveil.core.errors import LinkError

RETRY_SECONDS = 1
"""What a client is told to wait before it comes back."""


class Reason(Enum):
    """A reason: its name in metrics and logs, the gRPC status and the HTTP status."""

    CONTRACT = ("contract", "INVALID_ARGUMENT", 400)
    UNKNOWN = ("unknown model", "NOT_FOUND", 404)
    TOKEN = ("token", "UNAUTHENTICATED", 401)
    LAPSED = ("certificate", "UNAVAILABLE", 503)
    STRANGER = ("another host or origin", "PERMISSION_DENIED", 403)
    UNSERVED = ("unserved method", "UNIMPLEMENTED", 404)
    PAYLOAD = ("payload", "RESOURCE_EXHAUSTED", 413)
    ENCODING = ("encoding", "INVALID_ARGUMENT", 415)
    SLOW = ("slow body", "DEADLINE_EXCEEDED", 408)
    GONE = ("client left", "CANCELLED", 400)
    QUEUE = ("queue full", "RESOURCE_EXHAUSTED", 429)
    FULL = ("connections", "RESOURCE_EXHAUSTED", 503)
    STARTING = ("not ready", "UNAVAILABLE", 503)
    DEADLINE = ("deadline", "DEADLINE_EXCEEDED", 504)
    FAILED = ("model failed", "INTERNAL", 500)

    def __init__(self, word: str, grpc: str, http: int) -> None:
        self.word, self.grpc, self.http = word, grpc, http

    @property
    def passes(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self in (Reason.QUEUE, Reason.FULL, Reason.STARTING)


class RefusedError(LinkError):
    """A request that is not answered; the message repeats nothing that the client sent."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
