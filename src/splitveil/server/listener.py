"""HTTP connections: how many there may be, how long they may stay silent, and how they end. uvicorn does the rest."""

import asyncio
import contextlib
import socket
import ssl
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from splitveil.core.errors import LinkError
from splitveil.server.limits import Limits

HEAD_BYTES = 32 * 1024
"""Request line and headers."""
BACKLOG = 512
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-type: application/json\r\n"
    b'content-length: 56\r\n\r\n{"error": "too many connections; try again in a second"}'
)


class Connection(HttpToolsProtocol):
    """One connection, with what uvicorn leaves open.

    That is a cap on connections, a deadline and a largest size for the head of a request, and a deadline for a client
    that does not read its answer.
    """

    def __init__(self, limits: Limits, config: uvicorn.Config, state: ServerState) -> None:
        super().__init__(config, state, {})
        self._limits = limits
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._head = 0
        self._turned_away = False

    def connection_made(self, transport: Any) -> None:
        """Take it, or turn it away when there are too many."""
        if len(self.connections) >= self._limits.connections:
            self._turned_away = True
            transport.write(FULL)
            transport.close()
            return
        super().connection_made(transport)
        self._start("head")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        for name in list(self._timers):
            self._end(name)
        if not self._turned_away:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, within the deadline and the bound of a head."""
        if self._turned_away:
            return
        self._head = 0 if self._busy else self._head + len(data)
        super().data_received(data)
        if self._busy or self.transport.is_closing():
            self._end("head")
        elif self._head > HEAD_BYTES:
            self.send_400_response("The request's head is too long.")
        elif "head" not in self._timers:
            self._start("head")

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._head = 0
        super().on_headers_complete()

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

    def _start(self, name: str) -> None:
        self._end(name)
        self._timers[name] = self.loop.call_later(self._limits.read_seconds, self.transport.abort)

    def _end(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()


class HttpListener:
    """``async with HttpListener(...)``; leaving it answers what is in flight. It handles no signals.

    Args:
        app: what answers.
        host: address to listen on.
        port: 0 for a free one; `port` then says which.
        limits: of connections.
        context: for TLS.

    Raises:
        LinkError: the port is taken or the address is not this machine's.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, limits: Limits, context: ssl.SSLContext | None) -> None:
        self.host, self.port, self._limits, self._context = host, port, limits, context
        self._config = uvicorn.Config(
            app, http=HttpToolsProtocol, ws="none", lifespan="off", log_config=None, access_log=False,
            proxy_headers=False, server_header=False, timeout_keep_alive=int(max(1, limits.idle_seconds)),
        )  # fmt: skip
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._state.connections)

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Connection(self._limits, self._config, self._state),
                self.host.strip("[]"), self.port, backlog=BACKLOG, ssl=self._context,
                ssl_handshake_timeout=self._limits.read_seconds if self._context else None,
            )  # fmt: skip
        except OSError:
            raise LinkError(
                f"cannot listen on {self.host}:{self.port}; choose another --http-port, or 0 for a free one."
            ) from None
        self.port = _port(self._server.sockets)

    async def stop(self, grace: float) -> None:
        """Take no new request, finish those in flight within `grace` seconds."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self._state.tasks:
                    await asyncio.wait(self._state.tasks)
                while self._state.connections:
                    await asyncio.sleep(0.01)
        for connection in list(self._state.connections):
            connection.transport.abort()
        for task in list(self._state.tasks):
            task.cancel()


def _port(sockets: Any) -> int:
    found: list[socket.socket] = list(sockets)
    return int(found[0].getsockname()[1])
