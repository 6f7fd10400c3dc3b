"""SIGTERM: everything that the server took gets its answer, or this tells."""

import asyncio
import signal
import time
from collections import Counter

import grpc

from splitveil.core.progress import task
from tests.faults.asking import Client, GrpcClient, HttpClient, RefusedStatusError
from tests.faults.exact import Exact
from tests.faults.finding import Finding
from tests.faults.process import Victim

HELD = 32
"""Requests on each protocol that wait for the model when the signal comes."""
LOAD, SECONDS = 16, 0.5
GONE = (grpc.RpcError, OSError, EOFError, TimeoutError, RefusedStatusError)


async def _asked(exact: Exact, client: Client, first: int, rows: int) -> str:
    z = exact.questions(first, rows)
    try:
        return "right" if exact.right(z, await client.ask(z)) else "wrong"
    except GONE:
        return "lost"


async def _held(exact: Exact, server: Victim, first: int) -> Counter[str]:
    """All wait for the model; then the signal; then the model goes on."""
    channel = GrpcClient(server.grpc_port)
    lines = [HttpClient(server.http_port) for _ in range(HELD)]
    clients: list[Client] = [*[channel] * HELD, *lines]
    asked = [asyncio.create_task(_asked(exact, client, first + 2 * i, 2)) for i, client in enumerate(clients)]
    for _ in clients:
        assert await asyncio.to_thread(server.read) == {"got": 1}
    server.tell(signal.SIGTERM)
    while await _open(server.http_port) or await _open(server.grpc_port):
        await asyncio.sleep(0.01)
    server.write("\n" * len(clients))
    outcomes = Counter(await asyncio.gather(*asked))
    await asyncio.gather(channel.close(), *(line.close() for line in lines))
    return outcomes


async def _open(port: int) -> bool:
    """Whether a new connection is taken."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _loaded(exact: Exact, server: Victim, first: int) -> Counter[str]:
    """Clients ask without a pause; the signal comes in their midst."""
    stop = asyncio.Event()
    outcomes: Counter[str] = Counter()

    async def work(client: Client, number: int) -> None:
        turn = 0
        while not stop.is_set():
            outcome = await _asked(exact, client, first + 1000 * number + turn, 1)
            outcomes[f"{client.protocol} {outcome}"] += 1
            if outcome == "lost":
                break
            turn += 1
        await client.close()

    clients: list[Client] = [GrpcClient(server.grpc_port) for _ in range(LOAD)]
    clients += [HttpClient(server.http_port) for _ in range(LOAD)]
    working = [asyncio.create_task(work(client, number)) for number, client in enumerate(clients)]
    await asyncio.sleep(SECONDS)
    server.tell(signal.SIGTERM)
    _, late = await asyncio.wait(working, timeout=60)
    stop.set()
    for one in late:
        one.cancel()
    outcomes["hung"] = len(late)
    return outcomes


def drain(exact: Exact, rounds: int) -> Finding:
    """SIGTERM with 64 requests that wait for the model, and in mid-load, `rounds` times each."""
    held, loaded, answered = Counter[str](), Counter[str](), Counter[str]()
    failures, codes = [], set[int]()
    begun = time.perf_counter()
    with task("SIGTERM", 2 * rounds) as show:
        for count in range(rounds):
            with Victim(exact.bundle, "--gated") as server:
                held += asyncio.run(_held(exact, server, 10_000 * count))
                server.read()
                codes.add(server.wait(60))
            show(2 * count + 1)
            with Victim(exact.bundle) as server:
                found = asyncio.run(_loaded(exact, server, 100_000 * (count + 1)))
                told = server.read()
                codes.add(server.wait(60))
            loaded += found
            for protocol, name in (("gRPC", "grpc"), ("HTTP", "http")):
                answered[protocol] += told[name]
                got = found[f"{protocol} right"] + found[f"{protocol} wrong"]
                if told[name] != got:
                    failures.append(f"The server made {told[name]} answers over {protocol}, clients got {got}.")
            show(2 * count + 2)
    if held != Counter(right=2 * HELD * rounds):
        failures.append(f"Of {2 * HELD * rounds} requests in flight: {dict(held)}.")
    failures += [f"{p}: {loaded[f'{p} wrong']} wrong answers." for p in ("gRPC", "HTTP") if loaded[f"{p} wrong"]]
    if loaded["hung"]:
        failures.append(f"{loaded['hung']} clients hung.")
    if codes != {0}:
        failures.append(f"Exit codes {sorted(codes)}, expected 0.")
    return Finding(
        title="SIGTERM drains",
        ran=f"{rounds} times with {HELD} requests on each protocol that wait for the model when the signal comes "
        "(the model "
        f"goes on once both ports are closed), and {rounds} times in mid-load ({LOAD} clients on each protocol that "
        "ask "
        f"without a pause), in {time.perf_counter() - begun:.0f} s.",
        columns=("", "gRPC", "HTTP"),
        rows=(
            ("in flight at the signal, answered rightly", *[f"{held['right']} of {2 * HELD * rounds} over both"] * 2),
            ("mid-load: answers that the server made", *(f"{answered[p]:,}" for p in ("gRPC", "HTTP"))),
            ("mid-load: answers that clients got, all right", *(f"{loaded[f'{p} right']:,}" for p in ("gRPC", "HTTP"))),
            ("mid-load: requests that came after the end", *(f"{loaded[f'{p} lost']:,}" for p in ("gRPC", "HTTP"))),
        ),
        notes=("In mid-load a lost answer would show as one that the server made and no client got.",),
        failures=tuple(failures),
    )  # fmt: skip
