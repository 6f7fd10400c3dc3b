"""Strangers who take places and do nothing with them, while a good client asks and health is looked at."""

import asyncio
import http.client
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2

from splitveil.core.progress import task
from splitveil.server.service import ASKED, NAME, OPEN
from tests.faults.asking import Client, GrpcClient, HttpClient, RefusedStatusError
from tests.faults.exact import Exact
from tests.faults.finding import Finding
from tests.faults.process import Victim
from tests.faults.strangers import strangers

CALLS, CONNECTIONS = 1024, 2000
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


def flood(exact: Exact, folder: Path, seconds: float, calls: int = CALLS, connections: int = CONNECTIONS) -> Finding:
    """Each flood for so many seconds, one after the other, and then all at once."""
    token = "a-token-of-the-good-client-only"
    tokens = folder / "flood-tokens"
    tokens.write_text(f"{token}\n")
    rows, failures = [], []
    with Victim(exact.bundle, "--token-file", str(tokens)) as server, task("floods", 7) as show:
        g, h, m = server.grpc_port, server.http_port, server.metrics_port
        behind, half = " ".join([*ASKED, "ModelInfer"]), r"GET /v2 HTTP/1.1\r\nHost:"
        floods: dict[str, list[tuple[str | int, ...]]] = {
            f"{calls:,} calls of ServerLive without their message": [("calls", g, calls, "", OPEN[0])],
            f"{calls:,} calls of the others, no token": [("calls", g, calls, "", *behind.split())],
            f"{calls:,} calls of the others, a token": [("calls", g, calls, token, *behind.split())],
            f"{connections:,} silent connections to gRPC": [("lines", g, connections)],
            f"{connections:,} silent connections to HTTP": [("lines", h, connections)],
            f"{connections:,} half heads over HTTP": [("lines", h, connections, half)],
            f"all of it, and {connections:,} silent connections to the metrics": [
                ("calls", g, calls, token, OPEN[0], *behind.split()), ("lines", g, connections),
                ("lines", h, connections), ("lines", m, connections),
            ],
        }  # fmt: skip
        start = server.memory
        for done, (name, them) in enumerate(floods.items()):
            seen, stop = Seen(), threading.Event()
            with ExitStack() as stack:
                for words in them:
                    stack.enter_context(strangers(*words))
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
        ran=f"Each for {seconds:g} s, from this machine's own address by processes of their own, with the server's "
        "default limits; what is closed comes back a second later. Meanwhile a good client asks over both "
        "protocols, on connections that it keeps and on new ones, and health is asked for over both, each time on a "
        "new connection.",
        columns=("flood", "good requests", "lost", "looks at health", "slowest", "descriptors", "memory"),
        rows=tuple(rows),
        notes=("Memory is what the process holds more than before the first flood. All share the machine's cores.",),
        failures=tuple(failures),
    )  # fmt: skip
