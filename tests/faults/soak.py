"""Load for a long time, and whether the server's memory stays flat."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import grpc
import numpy as np
from scipy import stats

from splitveil.core.progress import Show, task
from tests.faults.asking import Client, GrpcClient, HttpClient, RefusedStatusError
from tests.faults.exact import Exact
from tests.faults.finding import Finding
from tests.faults.process import Victim

FLAT = 1.0
"""MB a minute."""
WORKERS, PAUSE = 6, 0.01
WARM_UP = 0.2
"""Share of the time that is left out."""


@dataclass(frozen=True, slots=True)
class Slope:
    """MB a minute with its 95 % interval."""

    value: float
    low: float
    high: float


def slope(samples: Sequence[tuple[float, float]]) -> Slope:
    """Least squares through (seconds, MB). Memory remembers: the residuals' first autocorrelation shrinks the count.

    The effective count n (1 - r) / (1 + r) is that of an AR(1) process (Bayley and Hammersley, 1946).
    """
    minutes, memory = (np.asarray(column, float) for column in zip(*samples, strict=True))
    minutes = minutes / 60
    fit = stats.linregress(minutes, memory)
    rest = memory - (fit.intercept + fit.slope * minutes)
    n = len(memory)
    spread = float((rest**2).sum())
    r = max(0.0, float((rest[1:] * rest[:-1]).sum()) / spread) if spread > 0 else 0.0
    effective = max(3.0, n * (1 - r) / (1 + r))
    error = math.sqrt(spread / (effective - 2) / float(((minutes - minutes.mean()) ** 2).sum() * effective / n))
    half = float(stats.t.ppf(0.975, effective - 2)) * error
    return Slope(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half)


async def _load(
    exact: Exact, server: Victim, seconds: float, every: float, show: Show
) -> tuple[Counter[str], list[tuple[float, float]]]:
    counts: Counter[str] = Counter()
    samples: list[tuple[float, float]] = []
    begun = time.monotonic()

    async def work(client: Client, number: int) -> None:
        turn, random = 0, Random(number)
        while time.monotonic() - begun < seconds:
            z = exact.questions(2**20 * number + 4 * turn, 1 + turn % 4)
            turn += 1
            spoiled = random.random() < 0.05
            try:
                got = await client.ask(z[:, :4] if spoiled else z)
                counts["right" if not spoiled and exact.right(z, got) else "wrong"] += 1
            except (grpc.RpcError, RefusedStatusError) as error:
                told = error.code().name if isinstance(error, grpc.RpcError) else str(error)
                refused = spoiled and told in ("INVALID_ARGUMENT", "400")
                counts["refused" if refused else "failed"] += 1
            except (OSError, EOFError, TimeoutError):
                counts["failed"] += 1
            await asyncio.sleep(PAUSE)
        await client.close()

    async def look() -> None:
        while (passed := time.monotonic() - begun) < seconds:
            samples.append((passed, server.memory))
            show(int(passed))
            await asyncio.sleep(every)

    clients: list[Client] = [GrpcClient(server.grpc_port) for _ in range(WORKERS)]
    clients += [HttpClient(server.http_port) for _ in range(WORKERS)]
    await asyncio.gather(look(), *(work(client, number) for number, client in enumerate(clients)))
    return counts, samples


def soak(exact: Exact, seconds: float, every: float = 5.0) -> Finding:
    """Load on both protocols, one request in twenty of a wrong shape, and a look at the memory each `every` seconds."""
    with Victim(exact.bundle) as server, task("soak, seconds", int(seconds)) as show:
        handles = server.handles
        counts, samples = asyncio.run(_load(exact, server, seconds, every, show))
        alive, more = server.alive, server.handles - handles
    warm = [s for s in samples if s[0] >= WARM_UP * seconds]
    found = slope(warm)
    failures = [f"{counts[what]} {what} answers." for what in ("wrong", "failed") if counts[what]]
    if not alive:
        failures.append("The server died.")
    if not found.high < FLAT:
        failures.append(f"Not flat: the slope may be {found.high:.2f} MB a minute, the limit is {FLAT:g}.")
    memory = [mb for _, mb in samples]
    return Finding(
        title="Soak",
        ran=f"{seconds:g} s of load by {WORKERS} clients on each protocol ({counts['right']:,} right answers, "
        f"{counts['refused']:,} requests of a wrong shape, all refused); the server's resident memory every "
        f"{every:g} s.",
        columns=("first MB", "last MB", "most MB", "slope after warm-up, MB a minute", "95 % interval", "samples"),
        rows=((
            f"{memory[0]:.1f}", f"{memory[-1]:.1f}", f"{max(memory):.1f}", f"{found.value:+.3f}",
            f"{found.low:+.3f} to {found.high:+.3f}", str(len(warm)),
        ),),
        notes=(
            f"Flat means: the interval ends below {FLAT:g} MB a minute; the first {100 * WARM_UP:.0f} % of the time "
            "are "
            f"left out. The interval allows for the samples' memory (AR(1)). Open files at the end: {more:+d}.",
        ),
        failures=tuple(failures), series=tuple((round(s, 2), round(mb, 3)) for s, mb in samples),
    )  # fmt: skip
