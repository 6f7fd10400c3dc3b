"""Strangers who take places and do nothing with them, while a good client asks and health is looked at."""

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from splitveil.core.progress import task
from splitveil.server.descriptors import affordable
from splitveil.server.service import ASKED, NAME, OPEN
from tests.faults.asking import Client, GrpcClient, HttpClient, RefusedStatusError
from tests.faults.exact import Exact
from tests.faults.finding import Finding
from tests.faults.process import Victim

CALLS, CONNECTIONS, PER_CHANNEL = 1024, 2000, 256
HEALTH_SECONDS = 1.0
"""Within which health must answer."""


@dataclass
class Seen:
    """What happened to the good during one flood."""

    asked: int = 0
    problems: list[str] = field(default_factory=list)
    slowest: float = 0.0
    looks: int = 0


def ask_on(exact: Exact, server: Victim, token: str, stop: threading.Event, seen: Seen) -> None:
    """Ask on one connection of each protocol, and now and then on a new one, until told."""

    async def run() -> None:
        held: list[Client] = [GrpcClient(server.grpc_port, token), HttpClient(server.http_port, token)]
        while not stop.is_set():
            fresh: list[Client] = [GrpcClient(server.grpc_port, token), HttpClient(server.http_port, token)]
            for client in (*held, *held, *fresh):
                z = exact.questions(seen.asked % 2**23, 2)
                seen.asked += 1
                try:
                    if not exact.right(z, await client.ask(z, exact.bundle.manifest.contract)):
                        seen.problems.append(f"a wrong answer over {client.protocol}")
                except (grpc.RpcError, OSError, EOFError, RefusedStatusError) as error:
                    seen.problems.append(f"{type(error).__name__} over {client.protocol}")
                    await client.close()
            for client in fresh:
                await client.close()
            await asyncio.sleep(0.02)
        for client in held:
            await client.close()

    asyncio.run(run())


def look_on(server: Victim, stop: threading.Event, seen: Seen) -> None:
    """Ask after health over both protocols, each time on a new connection, until told."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    while not stop.is_set():
        for protocol in ("HTTP", "gRPC"):
            begun = time.perf_counter()
            try:
                if protocol == "HTTP":
                    line = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=20)
                    line.request("GET", "/v2/health/ready")
                    well = line.getresponse().status == 200
                    line.close()
                else:
                    with grpc.insecure_channel(server.target, options) as channel:
                        ready = channel.unary_unary(f"/{NAME}/ServerReady")
                        well = service_pb2.ServerReadyResponse.FromString(ready(b"", timeout=20)).ready
                if not well:
                    seen.problems.append(f"health over {protocol} says no")
            except (OSError, grpc.RpcError, http.client.HTTPException) as error:
                seen.problems.append(f"health over {protocol}: {type(error).__name__}")
            seen.slowest = max(seen.slowest, time.perf_counter() - begun)
            seen.looks += 1
        time.sleep(0.05)


@contextmanager
def half_open_calls(port: int, methods: Sequence[str], token: str | None, count: int) -> Iterator[None]:
    """Calls that never send their message, some hundred a connection."""
    over = threading.Event()
    shown = None if token is None else [("authorization", f"Bearer {token}")]

    async def hold() -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        many = -(-count // PER_CHANNEL)
        channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(many)]
        calls: list[Any] = []
        while not over.is_set():
            # Those that had to leave come back, as somebody's would who means harm.
            calls = [call for call in calls if not call.done()]
            for i in range(len(calls), count):
                method = f"/{NAME}/{methods[i % len(methods)]}"
                calls.append(channels[i % many].stream_unary(method)(metadata=shown))
            await asyncio.sleep(0.2)
        for call in calls:
            call.cancel()
        await asyncio.gather(*(channel.close() for channel in channels))

    thread = threading.Thread(target=lambda: asyncio.run(hold()))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def silent_lines(port: int, sent: bytes, count: int) -> Iterator[None]:
    """Connections that send `sent` and then nothing; those that are closed come back."""
    over = threading.Event()

    def hold() -> None:
        lines: list[socket.socket] = []
        while not over.is_set():
            lines = [line for line in lines if not _closed(line)]
            while len(lines) < count and not over.is_set():
                try:
                    line = socket.create_connection(("127.0.0.1", port), timeout=5)
                    line.sendall(sent)
                except OSError:
                    break
                lines.append(line)
            time.sleep(0.1)
        for line in lines:
            line.close()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _closed(line: socket.socket) -> bool:
    try:
        return line.recv(1, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def flood(exact: Exact, folder: Path, seconds: float, calls: int = CALLS, connections: int = CONNECTIONS) -> Finding:
    """Each flood for so many seconds, one after the other, and then all at once."""
    affordable(4 * connections + 1024)
    token = "a-token-of-the-good-client-only"
    tokens = folder / "flood-tokens"
    tokens.write_text(f"{token}\n")
    rows, failures = [], []
    with Victim(exact.bundle, "--token-file", str(tokens)) as server, task("floods", 7) as show:
        g, h, m = server.grpc_port, server.http_port, server.metrics_port
        floods = {
            f"{calls:,} calls of ServerLive without their message": [half_open_calls(g, OPEN[:1], None, calls)],
            f"{calls:,} calls of the others, no token": [half_open_calls(g, [*ASKED, "ModelInfer"], None, calls)],
            f"{calls:,} calls of the others, a token": [half_open_calls(g, [*ASKED, "ModelInfer"], token, calls)],
            f"{connections:,} silent connections to gRPC": [silent_lines(g, b"", connections)],
            f"{connections:,} silent connections to HTTP": [silent_lines(h, b"", connections)],
            f"{connections:,} half heads over HTTP": [silent_lines(h, b"GET /v2 HTTP/1.1\r\nHost:", connections)],
            f"all of it, and {connections:,} silent connections to the metrics": [
                half_open_calls(g, [*OPEN, *ASKED, "ModelInfer"], token, calls), silent_lines(g, b"", connections),
                silent_lines(h, b"", connections), silent_lines(m, b"", connections),
            ],
        }  # fmt: skip
        start = server.memory
        for done, (name, them) in enumerate(floods.items()):
            seen, stop = Seen(), threading.Event()
            with ExitStack() as stack:
                for one in them:
                    stack.enter_context(one)
                time.sleep(min(1.0, seconds / 2))
                good = [
                    threading.Thread(target=ask_on, args=(exact, server, token, stop, seen)),
                    threading.Thread(target=look_on, args=(server, stop, seen)),
                ]
                for thread in good:
                    thread.start()
                time.sleep(seconds)
                stop.set()
                for thread in good:
                    thread.join()
                handles = server.handles
            if not server.alive:
                failures.append(f"The server died in: {name}.")
                break
            failures += [f"{name}: {problem}." for problem in dict.fromkeys(seen.problems)]
            if seen.slowest > HEALTH_SECONDS:
                failures.append(f"{name}: health took {seen.slowest:.2f} s.")
            lost = len(seen.problems)
            rows.append(
                (name, f"{seen.asked:,}", f"{lost}", f"{seen.looks}", f"{1000 * seen.slowest:.0f} ms", f"{handles:,}",
                 f"{server.memory - start:+.0f} MB")
            )  # fmt: skip
            show(done + 1)
    return Finding(
        title="Floods",
        ran=f"Each for {seconds:g} s, from this machine's own address, with the server's default limits; what is "
        "closed comes back. Meanwhile a good client asks over both protocols, on connections that it keeps and on new "
        "ones, and health is asked for over both, each time on a new connection.",
        columns=("flood", "good requests", "lost", "looks at health", "slowest", "descriptors", "memory"),
        rows=tuple(rows),
        notes=("Memory is what the process holds more than before the first flood. All share the machine's cores.",),
        failures=tuple(failures),
    )  # fmt: skip
