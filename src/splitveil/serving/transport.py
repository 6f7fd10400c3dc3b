"""The device's channel to one or several servers: addresses, TLS, token, and how bytes get there and back."""

import asyncio
import ipaddress
import json
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc

from splitveil.errors import InputError, LinkError
from splitveil.serving.exchange import Call, Failed, Pause, Talk

T = TypeVar("T")

SERVICE = "inference.GRPCInferenceService"
RETRY_BUFFER = 2**28
"""Bytes, 256 MiB: above any request that a server takes by default."""
POLICY = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
"""Retries are the device's own, see `retry`; gRPC itself only repeats what never left."""


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Files for an encrypted connection, all PEM.

    Args:
        ca: certificates that the server's must go back to; None for those that gRPC brings along.
        cert: the device's own, for servers that ask for one (mutual TLS); with `key`.
        key: the private key of `cert`, unencrypted.
        name: on the server's certificate, where that is not the host that was asked for.

    Raises:
        InputError: `cert` without `key` or the other way round.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise InputError("expected a certificate and its key, got one of them; give both for mutual TLS.")

    def credentials(self) -> grpc.ChannelCredentials:
        """For a gRPC channel.

        Raises:
            InputError: a file that cannot be read.
        """
        ca, key, cert = (_content(p) for p in (self.ca, self.key, self.cert))
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


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

    def _step(self, step: Call | Pause) -> bytes:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return b""
        reply: bytes = self._channel.method(step.method)(
            step.message, timeout=step.timeout, wait_for_ready=step.wait, metadata=self.metadata
        )
        return reply

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

    async def _step(self, step: Call | Pause) -> bytes:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return b""
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


def _content(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path.") from None
