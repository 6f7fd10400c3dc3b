"""A TCP proxy that reads what crosses, and can cut or hold the connection."""

import socket
import struct
import threading
from contextlib import suppress
from typing import Any, Self

from tritonclient.grpc import service_pb2

PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
DATA = 0


class Wiretap:
    """Stands before a server on a port of its own; ``with Wiretap(port) as tap``.

    Args:
        upstream: the server's port on this machine.
        cuts: how many connections to cut as soon as a whole inference request has come, before it is passed on.
    """

    def __init__(self, upstream: int, cuts: int = 0) -> None:
        self.upstream, self.cuts = upstream, cuts
        self._frozen: list[bytearray] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._sent: list[bytearray] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            _shut(one)
        for thread in self._threads:
            thread.join(20)
        for one in self._sockets:
            one.close()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def all_bytes(self) -> bytes:
        """Everything that clients sent, connection after connection."""
        return b"".join(map(bytes, self._sent))

    def freeze(self) -> None:
        """Swallow whatever else comes on the connections that there are, as a network does that has moved on."""
        self._frozen = list(self._sent)

    def requests(self) -> list[Any]:
        """Every ``ModelInferRequest`` that came, whole ones only, as the wire had it."""
        return [request for _, request in self.messages()]

    def messages(self) -> list[tuple[bytes, Any]]:
        """The same with the bytes of each message."""
        return [found for sent in list(self._sent) for found in _inferences(bytes(sent))]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.upstream), timeout=20)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                self._sockets += [client, server]
                sent = bytearray()
                self._sent.append(sent)
                self._start(self._forward, client, server, sent)
                self._start(self._return, server, client)

    def _forward(self, client: socket.socket, server: socket.socket, sent: bytearray) -> None:
        with suppress(OSError):
            while received := client.recv(2**16):
                sent += received
                if self.cuts and _inferences(bytes(sent)):
                    self.cuts -= 1
                    break
                if not any(sent is frozen for frozen in self._frozen):
                    server.sendall(received)
        _shut(client)
        _shut(server)

    def _return(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while received := server.recv(2**16):
                client.sendall(received)
        _shut(client)
        _shut(server)

    def _start(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def _inferences(sent: bytes) -> list[tuple[bytes, Any]]:
    """HTTP/2 data frames (RFC 9113, 4.1) by stream, then gRPC's messages with their five bytes of header."""
    streams: dict[int, bytearray] = {}
    at = PREFACE
    while at + 9 <= len(sent):
        length, kind, flags, stream = (
            *struct.unpack(">I", b"\0" + sent[at : at + 3]),
            *struct.unpack(">BBI", sent[at + 3 : at + 9]),
        )
        if at + 9 + length > len(sent):
            break
        if kind == DATA:
            assert not flags & 8, "padded"
            streams.setdefault(stream, bytearray()).extend(sent[at + 9 : at + 9 + length])
        at += 9 + length
    found = []
    for data in streams.values():
        if len(data) < 5 or len(data) < 5 + int.from_bytes(data[1:5]):
            continue
        message = bytes(data[5 : 5 + int.from_bytes(data[1:5])])
        request = service_pb2.ModelInferRequest()
        with suppress(Exception):
            request.ParseFromString(message)
            if request.raw_input_contents:
                found.append((message, request))
    return found
