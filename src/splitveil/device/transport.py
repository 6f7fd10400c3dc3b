"""The device's channel to one or several servers: addresses, TLS, token, and how bytes get there and back."""

import asyncio
import ipaddress
import json
import socket
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import grpc

from splitveil.core.errors import InputError, LinkError
from splitveil.device.client_tls import ClientTls
from splitveil.device.doorstep import seen_at
from splitveil.device.exchange import Call, Failed, Look, Pause, Talk

T = TypeVar("T")

SERVICE = "inference.GRPCInferenceService"
RETRY_BUFFER = 2**28
"""Bytes, 256 MiB: above any request that a server takes by default."""
POLICY = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
"""Retries are the device's own, see `retry`; gRPC itself only repeats what never left."""


class Transport:
    """One channel over all servers, taken in turn. Messages go in and come out as bytes, so a retry resends the same.

    Args:
        targets: ``HOST:PORT`` each; names are looked up by gRPC for one target, and once, here, for several.
        token: sent with every call as ``Authorization: Bearer``.
        tls: None for plain text.
        insecure: allow a token in plain text to another machine.

    Raises:
        InputError: no address, or a token that others could read.
        LinkError: a name that cannot be looked up.
    """

    def __init__(self, targets: Sequence[str], token: str | None, tls: ClientTls | None, insecure: bool) -> None:
        places = [_place(t) for t in targets]
        if not places:
            raise InputError("expected HOST:PORT, got no target; give at least one server.")
        if token is not None and tls is None and not insecure and not all(_local(host) for host, _ in places):
            raise InputError("expected TLS beside a token, got plain text to another machine; give tls or insecure.")
        self.metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self._places, self._tls = places, tls
        self._address = _address(places)
        self._credentials = None if tls is None else tls.credentials()
        self._options = _options(tls.name or (places[0][0] if len(places) > 1 else None) if tls else None)
        self._channel = self._opened(grpc)

    def hold(self, talk: Talk[T]) -> T:
        """Make the calls and pauses that a conversation asks for; what it comes to.

        Raises:
            SplitVeilError: as the conversation says.
        """
        try:
            step = next(talk)
            while True:
                try:
                    reply = self._step(step)
                except grpc.RpcError as error:
                    step = talk.throw(_failure(error))
                else:
                    step = talk.send(reply)
        except StopIteration as done:
            found: T = done.value
            return found
        finally:
            talk.close()

    def _step(self, step: Call | Pause | Look) -> bytes:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return b""
        if isinstance(step, Look):
            return self.look(step.seconds)
        reply: bytes = self._channel.method(step.method)(
            step.message, timeout=step.timeout, wait_for_ready=step.wait, metadata=self.metadata
        )
        return reply

    def look(self, seconds: float) -> bytes:
        """Why calls to the first server where something is wrong may fail, in words; see `doorstep.seen_at`."""
        context = None if self._tls is None else self._tls.context()
        name = None if self._tls is None else self._tls.name or (self._places[0][0] if len(self._places) > 1 else None)
        for host, port in self._places:
            if found := seen_at(host, port, context, name, seconds / len(self._places)):
                return found.encode()
        return b""

    def renew(self) -> None:
        """Open new connections from now on: the old ones may hang on a network that has moved on."""
        self._channel = self._opened(grpc)

    def asynchronous(self) -> "AsyncTransport":
        """A second channel, for the event loop that runs now."""
        import grpc.aio

        return AsyncTransport(self, self._opened(grpc.aio))

    def close(self) -> None:
        """Close the channel."""
        self._channel.opened.close()

    def _opened(self, library: Any) -> "_Channel":
        if self._credentials is None:
            return _Channel(library.insecure_channel(self._address, options=self._options))
        return _Channel(library.secure_channel(self._address, self._credentials, options=self._options))


class AsyncTransport:
    """The same over ``grpc.aio``, bound to one event loop."""

    def __init__(self, transport: Transport, channel: "_Channel") -> None:
        self._transport, self._channel = transport, channel

    async def hold(self, talk: Talk[T]) -> T:
        """As `Transport.hold`."""
        try:
            step = next(talk)
            while True:
                try:
                    reply = await self._step(step)
                except grpc.RpcError as error:
                    step = talk.throw(_failure(error))
                else:
                    step = talk.send(reply)
        except StopIteration as done:
            found: T = done.value
            return found
        finally:
            talk.close()

    async def _step(self, step: Call | Pause | Look) -> bytes:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return b""
        if isinstance(step, Look):
            return await asyncio.to_thread(self._transport.look, step.seconds)
        reply: bytes = await self._channel.method(step.method)(
            step.message, timeout=step.timeout, wait_for_ready=step.wait, metadata=self._transport.metadata
        )
        return reply

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.opened.close()


class _Channel:
    """A channel, blocking or not, and its methods, each of which costs something to make."""

    def __init__(self, opened: Any) -> None:
        self.opened = opened
        self._methods: dict[str, Any] = {}

    def method(self, name: str) -> Any:
        """Takes and gives bytes."""
        if name not in self._methods:
            self._methods[name] = self.opened.unary_unary(f"/{SERVICE}/{name}")
        return self._methods[name]


def _failure(error: Any) -> Failed:
    return Failed(error.code().name, error.details() or "")


def _options(name: str | None) -> list[tuple[str, str | int]]:
    named: list[tuple[str, str | int]] = [] if name is None else [("grpc.ssl_target_name_override", name)]
    return [
        *named,
        ("grpc.service_config", POLICY),
        # gRPC silently repeats no message above 256 KiB, not even one that never left, unless its buffer is larger.
        ("grpc.per_rpc_retry_buffer_size", RETRY_BUFFER),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", RETRY_BUFFER),
        ("grpc.enable_http_proxy", 0),
        # Else a renewed channel would take over the old one's connections.
        ("grpc.use_local_subchannel_pool", 1),
    ]


def _place(target: str) -> tuple[str, int]:
    host, colon, port = target.strip().rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"expected HOST:PORT, got {target!r}; write for example 127.0.0.1:8001.")
    return host.strip("[]"), int(port)


def _address(places: list[tuple[str, int]]) -> str:
    if len(places) == 1:
        host, port = places[0]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    numbers = [(_looked_up(host), port) for host, port in places]
    six = [":" in host for host, _ in numbers]
    if any(six) != all(six):
        raise InputError("expected servers with IPv4 or with IPv6 addresses, got both; give one kind.")
    return ("ipv6:" if six[0] else "ipv4:") + ",".join(f"[{h}]:{p}" if six[0] else f"{h}:{p}" for h, p in numbers)


def _looked_up(host: str) -> str:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        raise LinkError(f"cannot look up {host}; check the name.") from None
    return str(min(found, key=lambda f: f[0] != socket.AF_INET)[4][0])


def _local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
