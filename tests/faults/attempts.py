"""What a hostile request is: what it sends, how long it waits, and what it may be answered."""

import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from threading import Event

import grpc

from tests.faults.asking import INFER
from tests.faults.exact import Exact

DEADLINE = 30.0
"""Seconds after which an answer, or the end of the connection, counts as a hang."""
JUNK = 200
HANG, CLOSED, LEFT, REFUSED = "hang", "closed", "left", "refused"


@dataclass(frozen=True, slots=True)
class Scene:
    """Where attempts happen.

    Args:
        exact: the bundle that is served.
        ports: of gRPC and HTTP.
        token, revoked: one that is good, and one that was good until the server read its tokens anew.
        payload: bytes of the largest message that the server takes.
    """

    exact: Exact
    ports: tuple[int, int]
    token: str
    revoked: str
    payload: int


Attempt = Callable[[Scene, Random], str]
"""Makes one request; a status, or one of the words above."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Hostile requests of one kind.

    Args:
        name: for the table.
        attempt: makes one.
        expected: the outcomes that are correct.
        slow: it takes the server's deadline for reading, so fewer are made.
    """

    name: str
    attempt: Attempt
    expected: frozenset[str]
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """Bytes over a raw connection to one port (0 gRPC, 1 HTTP).

    Args:
        port: which.
        make: what is sent, piece after piece.
        then: ``wait`` for the end, ``shut`` the sending side and wait, or ``reset`` and be gone.
        read: outcome of everything that came back.
    """

    port: int
    make: Callable[[Scene, Random], tuple[bytes, ...]]
    read: Callable[[bytes], str]
    then: str = "wait"

    def __call__(self, scene: Scene, random: Random) -> str:
        with socket.create_connection(("127.0.0.1", scene.ports[self.port]), timeout=DEADLINE) as line:
            with suppress(ConnectionError):
                for piece in self.make(scene, random):
                    line.sendall(piece)
            if self.then == "reset":
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return LEFT
            if self.then == "shut":
                with suppress(OSError):
                    line.shutdown(socket.SHUT_WR)
            parts = []
            try:
                while part := line.recv(65536):
                    parts.append(part)
            except TimeoutError:
                return HANG
            except ConnectionError:
                pass
            return self.read(b"".join(parts))


@dataclass(frozen=True, slots=True)
class Dripping:
    """A good start over HTTP, then one byte after the other for as long as the server bears it (slow-loris).

    Args:
        make: the start, in one piece.
        read: outcome of everything that came back.
        pause: seconds between bytes, well below the server's deadline.
    """

    make: Callable[[Scene, Random], tuple[bytes, ...]]
    read: Callable[[bytes], str]
    pause: float = 0.1

    def __call__(self, scene: Scene, random: Random) -> str:
        got = b""
        with socket.create_connection(("127.0.0.1", scene.ports[1]), timeout=self.pause) as line:
            (start,) = self.make(scene, random)
            line.sendall(start)
            for _ in range(int(DEADLINE / self.pause)):
                try:
                    line.sendall(b"a")
                    part = line.recv(65536)
                except TimeoutError:
                    continue
                except ConnectionError:
                    return self.read(got)
                got += part
                if not part:
                    return self.read(got)
        return HANG


@dataclass(frozen=True, slots=True)
class Call:
    """One gRPC call over the stock library.

    Args:
        make: the message as bytes; several go one after the other, none leaves the stream silent or empty.
        token: ``good``, ``none``, ``revoked``, or any other to be shown as it is.
        method: path.
        silent: nothing is sent and the stream stays open.
        squeezed: the library compresses it on the way.
        also: another token, shown beside it.
    """

    make: Callable[[Scene, Random], tuple[bytes, ...]]
    token: str = "good"
    method: str = INFER
    silent: bool = False
    squeezed: bool = False
    also: str | None = None

    def __call__(self, scene: Scene, random: Random) -> str:
        shown: Mapping[str, str | None] = {
            "good": f"Bearer {scene.token}", "revoked": f"Bearer {scene.revoked}", "none": None,
        }  # fmt: skip
        header = shown.get(self.token, self.token)
        metadata = [("authorization", one) for one in (header, self.also) if one is not None]
        pieces = self.make(scene, random)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
        squeeze = grpc.Compression.Gzip if self.squeezed else None
        with grpc.insecure_channel(f"127.0.0.1:{scene.ports[0]}", options, squeeze) as channel:
            if self.silent:
                never = _Never()
                call = channel.stream_unary(self.method).future(never, timeout=DEADLINE, metadata=metadata)
                try:
                    return _status(call)
                finally:
                    never.over.set()
            if len(pieces) == 1:
                return _status(channel.unary_unary(self.method).future(pieces[0], timeout=DEADLINE, metadata=metadata))
            return _status(channel.stream_unary(self.method).future(iter(pieces), timeout=DEADLINE, metadata=metadata))


class _Never:
    """Messages that never come."""

    def __init__(self) -> None:
        self.over = Event()

    def __iter__(self) -> "_Never":
        return self

    def __next__(self) -> bytes:
        self.over.wait(DEADLINE)
        raise StopIteration


def _status(call: grpc.Future) -> str:
    error = call.exception()
    status = "OK" if error is None else str(error.code().name)
    deadline = error is not None and status == "DEADLINE_EXCEEDED" and "in time" not in (error.details() or "")
    return HANG if deadline else status


def junk(random: Random, most: int = JUNK) -> bytes:
    """1 to `most` bytes of anything."""
    return random.randbytes(random.randint(1, most))


def integer(random: Random) -> int:
    """One that no axis is."""
    return random.choice([-1, -(2**31), -(2**63), 2**31, 2**40, 2**62, 2**63, 2**70, 65, 10**6])


def random_axis(random: Random) -> int:
    """An axis that fits, or one that does not."""
    return random.choice([4, 8, 0, -4, 2**33])


def statuses(got: bytes) -> str:
    """Of each answer on the line, joined by +; ``closed`` if there was none."""
    found = [part[:3].decode("latin-1") for part in got.split(b"HTTP/1.1 ")[1:]]
    return "+".join(found) or CLOSED
