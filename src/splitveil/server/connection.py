"""`Connection`: one of HTTP/1.1, with what uvicorn leaves open: sizes, deadlines, and one meaning of its bytes."""

import asyncio
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from splitveil.server.limits import Limits
from splitveil.server.visits import PROBES_ONLY, WELCOME, Standing

HEAD_BYTES = 32 * 1024
"""Request line and headers; also the fields behind a body, and what frames a body besides."""


class Connection(HttpToolsProtocol):
    """A largest size and a deadline for heads, a deadline for clients that do not read, and no fields behind a body.

    Args:
        limits: of connections.
        config: uvicorn's.
        state: shared by all.
        probes_only: whether it may ask after health only.
        gone: called when it ends.
    """

    def __init__(
        self, limits: Limits, config: uvicorn.Config, state: ServerState, probes_only: bool, gone: Callable[[], None]
    ) -> None:
        super().__init__(config, state, {PROBES_ONLY: True} if probes_only else {})
        self._limits, self._gone = limits, gone
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._in_head, self._head = True, 0
        self._framed, self._body = 0, 0
        self._known = False

    @property
    def standing(self) -> Standing:
        """What it is at."""
        if self._busy:
            return Standing.SENDING if self.cycle.more_body else Standing.AT_WORK
        return Standing.IDLE if self._known else Standing.STRANGE

    def connection_made(self, transport: Any) -> None:
        """It is there, after its handshake if it has one."""
        super().connection_made(transport)
        self._start("head")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        for name in list(self._timers):
            self._end(name)
        self._gone()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on: a head within its size and its deadline, in however many pieces it comes."""
        if len(data) < HEAD_BYTES - self._head:
            self._feed(data)
        else:
            rest = memoryview(data)
            while len(rest) and not self.transport.is_closing():
                # A body that nobody will read is as short as a head.
                counted = self._in_head or not self._busy
                part = rest[: HEAD_BYTES - self._head] if counted else rest
                self._feed(part)  # type: ignore[arg-type]
                rest = rest[len(part) :]
        if self._busy or self.transport.is_closing():
            self._end("head")
        elif "head" not in self._timers:
            self._start("head")

    def _feed(self, part: bytes) -> None:
        if self._in_head or not self._busy:
            self._head += len(part)
        else:
            self._framed += len(part)
        super().data_received(part)
        if self._head >= HEAD_BYTES or self._framed > HEAD_BYTES + 9 * self._body:
            self._refuse("The request's head is too long.")

    def on_headers_complete(self) -> None:
        """The head is there."""
        if not self.url.startswith(b"/"):
            raise ValueError("a target that names another place than its Host")
        self._in_head, self._head, self._framed, self._body = False, 0, 0, 0
        super().on_headers_complete()
        # Fields behind the body are left out: they would count or not by when they came.
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """Some of it."""
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of a request is there."""
        if self.headers and sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES:
            raise ValueError("too much behind a body")
        super().on_message_complete()
        self._in_head, self._head, self._framed = True, 0, 0

    def on_response_complete(self) -> None:
        """All of an answer is sent."""
        self._known |= WELCOME in self.cycle.scope["state"]
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._start("answer")

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._end("answer")

    @property
    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, said: str) -> None:
        if not self.transport.is_closing():
            self.send_400_response(said)

    def _start(self, name: str) -> None:
        self._end(name)
        self._timers[name] = self.loop.call_later(self._limits.read_seconds, self.transport.abort)

    def _end(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
