"""The device's channel to one or several servers: addresses, TLS, token, and how bytes get there and back."""

import asyncio
import ipaddress
import itertools
import json
import socket
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
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
LOOK_AGAIN = 0.1
"""Seconds before servers of which none was there are asked again."""
POLICY = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
"""Retries are the device's own, see `retry`; gRPC itself only repeats what never left."""


class Transport:
    """Channels to all servers, taken in turn. Messages go in and come out as bytes, so a retry resends the same.

    With TLS each server shows a certificate of its own name: one of A's is none for B's address.

    Args:
        targets: ``HOST:PORT`` each; names are looked up by gRPC for one target, and once, here, for several.
        token: sent with every call as ``Authorization: Bearer``.
        tls: None for plain text.
        insecure: allow a token in plain text to another machine.
        largest: bytes of one answer.

    Raises:
        InputError: no address, or a token that others could read.
        LinkError: a name that cannot be looked up.
    """

    def __init__(
        self, targets: Sequence[str], token: str | None, tls: ClientTls | None, insecure: bool,
        largest: int = RETRY_BUFFER,
    ) -> None:  # fmt: skip
        places = [_place(t) for t in targets]
        if not places:
            raise InputError("expected HOST:PORT, got no target; give at least one server.")
        if token is not None and tls is None and not insecure and not all(_local(host) for host, _ in places):
            raise InputError("expected TLS beside a token, got plain text to another machine; give tls or insecure.")
        self.metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self._places, self._tls = places, tls
        self._credentials = None if tls is None else tls.credentials()
        apart = tls is not None and tls.name is None and len({host for host, _ in places}) > 1
        groups = [[place] for place in places] if apart else [places]
        self._channels = [(_address(group), _options(_name(tls, group), largest)) for group in groups]
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
        tries = self._channel.tries(step)
        one = next(tries)
        while True:
            if isinstance(one, float):
                time.sleep(one)
                one = next(tries)
                continue
            try:
                reply: bytes = one.ask(step.message, **one.how, metadata=self.metadata)
                return reply
            except grpc.RpcError as error:
                one = tries.throw(error)

    def look(self, seconds: float) -> bytes:
        """Why calls to the first server where something is wrong may fail, in words; see `doorstep.seen_at`."""
        context = None if self._tls is None else self._tls.context()
        name = None if self._tls is None else self._tls.name
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
        """Close the channels."""
        for one in self._channel.opened:
            one.close()

    def _opened(self, library: Any) -> "_Channels":
        if self._credentials is None:
            return _Channels([library.insecure_channel(at, options=options) for at, options in self._channels])
        return _Channels(
            [library.secure_channel(at, self._credentials, options=options) for at, options in self._channels]
        )


class AsyncTransport:
    """The same over ``grpc.aio``, bound to one event loop."""

    def __init__(self, transport: Transport, channel: "_Channels") -> None:
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
        tries = self._channel.tries(step)
        one = next(tries)
        while True:
            if isinstance(one, float):
                await asyncio.sleep(one)
                one = next(tries)
                continue
            try:
                reply: bytes = await one.ask(step.message, **one.how, metadata=self._transport.metadata)
                return reply
            except grpc.RpcError as error:
                one = tries.throw(error)

    async def close(self) -> None:
        """Close the channels."""
        for one in self._channel.opened:
            await one.close()


@dataclass(frozen=True, slots=True)
class _Try:
    """A method of one channel, bytes to bytes, and how long it is asked."""

    ask: Any
    how: dict[str, Any]


class _Channels:
    """Channels, blocking or not, and their methods, each of which costs something to make."""

    def __init__(self, opened: list[Any]) -> None:
        self.opened = opened
        self._methods: dict[tuple[int, str], Any] = {}
        self._turns = itertools.count()

    def tries(self, call: Call) -> Generator[_Try | float, None, None]:
        """Whom to ask, one after the other, or how long to wait; the error of who did not answer is thrown in.

        One channel knows itself who of its servers is there. Of several the next one is asked in the place of one that
        is not, and if none is, all are asked again for as long as the call may wait.

        Raises:
            grpc.RpcError: the last one, when nobody is left.
        """
        until, several = time.monotonic() + call.timeout, len(self.opened) > 1
        while True:
            first = next(self._turns)
            for i in range(len(self.opened)):
                left = max(0.001, until - time.monotonic())
                how = {"timeout": left, "wait_for_ready": call.wait and not several}
                try:
                    yield _Try(self._method((first + i) % len(self.opened), call.method), how)
                except grpc.RpcError as error:
                    if not several or error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() >= until:
                        raise
                    failed = error
            if not call.wait or time.monotonic() + LOOK_AGAIN >= until:
                raise failed
            yield LOOK_AGAIN

    def _method(self, which: int, name: str) -> Any:
        if (which, name) not in self._methods:
            self._methods[which, name] = self.opened[which].unary_unary(f"/{SERVICE}/{name}")
        return self._methods[which, name]


def _failure(error: Any) -> Failed:
    return Failed(error.code().name, error.details() or "")


def _options(name: str | None, largest: int) -> list[tuple[str, str | int]]:
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
        ("grpc.max_receive_message_length", largest),
        ("grpc.enable_http_proxy", 0),
        # Else a renewed channel would take over the old one's connections.
        ("grpc.use_local_subchannel_pool", 1),
    ]


def _name(tls: ClientTls | None, group: list[tuple[str, int]]) -> str | None:
    """On the certificate of servers that share a channel; None for the host that the channel is opened to."""
    return None if tls is None else tls.name or (group[0][0] if len(group) > 1 else None)


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
