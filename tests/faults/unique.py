"""Many good requests at once, each with a payload of its own, and whether every answer belongs to its question."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator

import grpc

from splitveil.core.progress import Show, task
from tests.faults.asking import Client, GrpcClient, HttpClient, RefusedStatusError
from tests.faults.exact import Exact
from tests.faults.finding import Finding
from tests.faults.process import Victim

WORKERS = 24
"""Of each protocol, each with one request in flight."""
MOST_ROWS = 4


async def _work(exact: Exact, client: Client, turns: Iterator[int], counts: Counter[str], show: Show) -> None:
    for turn in turns:
        z = exact.questions(MOST_ROWS * turn, 1 + turn // 2 % MOST_ROWS)
        try:
            right = exact.right(z, await client.ask(z))
        except (grpc.RpcError, OSError, EOFError, TimeoutError, RefusedStatusError):
            counts[f"{client.protocol} failed"] += 1
            continue
        counts[f"{client.protocol} {'right' if right else 'wrong'}"] += 1
        counts["rows"] += len(z)
        if turn % 100 == 0:
            show(turn)


async def _all(exact: Exact, server: Victim, requests: int, show: Show) -> Counter[str]:
    counts: Counter[str] = Counter()
    even, odd = iter(range(0, requests, 2)), iter(range(1, requests, 2))
    channels = [GrpcClient(server.grpc_port) for _ in range(4)]
    clients: list[Client] = [*itertools.islice(itertools.cycle(channels), WORKERS)]
    clients += [HttpClient(server.http_port) for _ in range(WORKERS)]
    turns = [even] * WORKERS + [odd] * WORKERS
    await asyncio.gather(*(_work(exact, c, own, counts, show) for c, own in zip(clients, turns, strict=True)))
    await asyncio.gather(*(client.close() for client in (*channels, *clients[WORKERS:])))
    return counts


def ask_unique(exact: Exact, requests: int) -> Finding:
    """Ask `requests` questions of 1 to 4 rows over both protocols; rows of all of them differ."""
    with Victim(exact.bundle) as server, task("good requests", requests) as show:
        start = time.perf_counter()
        counts = asyncio.run(_all(exact, server, requests, show))
        seconds = time.perf_counter() - start
        seen = server.metrics()
    batches = seen["splitveil_batch_rows_count"]
    mean = seen["splitveil_batch_rows_sum"] / batches
    alone = seen['splitveil_batch_rows_bucket{le="1.0"}'] / batches
    failures = [
        f"{counts[f'{protocol} {what}']} {protocol} answers {said}."
        for protocol in ("gRPC", "HTTP")
        for what, said in (("wrong", "were another question's"), ("failed", "never came"))
        if counts[f"{protocol} {what}"]
    ]
    if not counts["gRPC right"] or not counts["HTTP right"]:
        failures.append("One protocol answered nothing.")
    if not mean > counts["rows"] / requests:
        failures.append(f"Requests never shared a batch (mean {mean:.2f} rows), so this shows nothing.")
    return Finding(
        title="Good concurrent requests",
        ran=f"{requests:,} requests of 1 to {MOST_ROWS} rows ({counts['rows']:,} rows, all different) from {WORKERS} "
        f"clients at once on each protocol, in {seconds:.0f} s. The cloud half names its question exactly (a number of "
        "24 bits and seven check sums); every answer was compared bit for bit.",
        columns=("protocol", "right", "another question's", "failed"),
        rows=tuple(
            (p, *(f"{counts[f'{p} {what}']:,}" for what in ("right", "wrong", "failed"))) for p in ("gRPC", "HTTP")
        ),
        notes=(
            f"{batches:,.0f} batches, {mean:.1f} rows on average; {100 * alone:.0f} % of them held one row.",
        ),
        failures=tuple(failures),
    )  # fmt: skip
