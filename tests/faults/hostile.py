"""Requests that nobody would send by mistake, in batches, with a look at the server's health after each."""

import signal
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from splitveil.core.progress import task
from splitveil.lab.seeds import derive
from tests.faults import hostile_grpc, hostile_http, hostile_lines
from tests.faults.asking import wrong_answers
from tests.faults.attempts import HANG, Kind, Scene
from tests.faults.exact import Exact
from tests.faults.finding import Finding
from tests.faults.process import Victim

KINDS = (*hostile_http.KINDS, *hostile_lines.KINDS, *hostile_grpc.KINDS)
BATCH, THREADS = 250, 24
READ_SECONDS, IDLE_SECONDS = 1.0, 2.0
SLOW_SHARE = 0.25
"""How often a kind that waits for the server's deadline is drawn, against any other."""
GROWTH = 10.0
"""MB that the median of the last fifth of the looks may lie above that of the second fifth."""


def drawn(requests: int, seed: int) -> list[Kind]:
    """What to send, in order; each kind at least once where there is room."""
    random = Random(derive(seed, "kinds"))
    weights = [SLOW_SHARE if kind.slow else 1.0 for kind in KINDS]
    chosen = [*KINDS[:requests], *random.choices(KINDS, weights, k=max(0, requests - len(KINDS)))]
    random.shuffle(chosen)
    return chosen


def one(kind: Kind, scene: Scene, seed: int) -> str:
    """Outcome of one attempt; errors of its own count as such."""
    try:
        return kind.attempt(scene, Random(seed))
    except OSError as error:
        return type(error).__name__


def be_hostile(exact: Exact, folder: Path, requests: int, seed: int = 0) -> Finding:
    """Send `requests` hostile requests, all kinds over both protocols. folder: for the token file."""
    random = Random(derive(seed, "tokens"))
    token, revoked = random.randbytes(32).hex(), random.randbytes(32).hex()
    tokens = folder / "tokens"
    tokens.write_text(f"{token}\n{revoked}\n")
    options = ("--token-file", str(tokens), "--read-seconds", str(READ_SECONDS), "--idle-seconds", str(IDLE_SECONDS))
    outcomes: dict[str, Counter[str]] = {kind.name: Counter() for kind in KINDS}
    failures: list[str] = []
    looks: list[tuple[float, float]] = []
    with Victim(exact.bundle, *options) as server, task("hostile requests", requests) as show:
        ports = server.grpc_port, server.http_port
        failures += wrong_answers(exact, *ports, revoked, 0)
        tokens.write_text(f"{token}\n")
        server.tell(signal.SIGHUP)
        scene = Scene(exact, ports, token, revoked, exact.largest_message())
        until = time.monotonic() + 20
        while one(_named("HTTP: replayed token (revoked)"), scene, 0) != "401" and time.monotonic() < until:
            time.sleep(0.05)
        begun, handles = time.perf_counter(), server.handles
        kinds = drawn(requests, seed)
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, requests, BATCH):
                part = kinds[start : start + BATCH]
                seeds = [derive(seed, "request", start + i) for i in range(len(part))]
                for kind, outcome in zip(part, pool.map(one, part, [scene] * len(part), seeds), strict=True):
                    outcomes[kind.name][outcome] += 1
                done = start + len(part)
                if not server.alive:
                    failures.append(f"The server died within the first {done:,} requests.")
                    break
                failures += wrong_answers(exact, *ports, token, done)
                looks.append((float(done), server.memory))
                show(done)
        seconds = time.perf_counter() - begun
        left = _settled(server, handles) if server.alive else 0
    return _finding(outcomes, failures, looks, seconds, left)


def _named(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name == name)


def _settled(server: Victim, handles: int) -> int:
    """Open handles more than before, once idle connections have had their time."""
    until = time.monotonic() + 10 * IDLE_SECONDS
    while server.handles > handles and time.monotonic() < until:
        time.sleep(0.1)
    return server.handles - handles


def grown(looks: Sequence[tuple[float, float]]) -> float | None:
    """MB between the second and the last fifth of the looks (medians); None for fewer than five."""
    fifth = len(looks) // 5
    if fifth == 0:
        return None
    memory = [mb for _, mb in looks]
    return statistics.median(memory[-fifth:]) - statistics.median(memory[fifth : 2 * fifth])


def _finding(
    outcomes: dict[str, Counter[str]], failures: list[str], looks: list[tuple[float, float]], seconds: float, left: int
) -> Finding:
    rows = []
    for kind in KINDS:
        got = outcomes[kind.name]
        wrong = {outcome: n for outcome, n in got.items() if outcome not in kind.expected}
        for outcome, n in wrong.items():
            failures.append(f"{kind.name}: {n} times {outcome}, expected {' or '.join(sorted(kind.expected))}.")
        told = ", ".join(f"{outcome} {n:,}" for outcome, n in sorted(got.items())) or "not drawn"
        rows.append((kind.name, " or ".join(sorted(kind.expected)), told))
    growth = grown(looks)
    if growth is not None and growth > GROWTH:
        failures.append(f"Memory grew by {growth:.1f} MB.")
    if left > 0:
        failures.append(f"{left} connections or files were left open.")
    total = sum(sum(got.values()) for got in outcomes.values())
    hangs = sum(got[HANG] for got in outcomes.values())
    memory = [mb for _, mb in looks]
    notes = [
        f"{hangs} hangs (an answer or the end of the connection within 30 s counts as none). After every {BATCH} "
        "requests the process was alive and answered a good request over each protocol, bit for bit; failures would be "
        "named below. At the end no connection and no file more was open than at the start.",
    ]
    if memory:
        more = "" if growth is None else f" Between the second fifth and the last: {growth:+.1f} MB (limit {GROWTH:g})."
        notes.append(f"Resident memory after the first {looks[0][0]:,.0f} requests {memory[0]:.1f} MB, at the end "
                     f"{memory[-1]:.1f} MB, most {max(memory):.1f} MB.{more}")  # fmt: skip
    notes.append(
        "*closed*: the server ended the connection without an answer, where no request was there to answer; *refused*: "
        "it ended the call or the connection by a frame of HTTP/2; *left*: the client was gone. A kind that changes "
        "bytes at random may also leave a good request."
    )
    return Finding(
        title="Hostile requests",
        ran=f"{total:,} requests of {len(KINDS)} kinds from {THREADS} clients at once, in {seconds:.0f} s; bodies must "
        f"arrive within {READ_SECONDS:g} s here (20 s by default), and every request needs a token.",
        columns=("kind", "expected", "seen"), rows=tuple(rows), notes=tuple(notes), failures=tuple(failures),
        series=tuple(looks),
    )  # fmt: skip
