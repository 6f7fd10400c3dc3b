"""Bytes that hypothesis draws, at both protocols of a running server: documented answers alone, and it lives on."""

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import grpc
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from splitveil.core.progress import task
from tests.faults.asking import INFER, head, http_request, message, wrong_answers
from tests.faults.attempts import CLOSED, HANG, REFUSED, Line, Scene, statuses
from tests.faults.exact import Exact
from tests.faults.finding import Finding
from tests.faults.hostile_grpc import PREFACE, over
from tests.faults.process import Victim

READ_SECONDS = 0.5
"""Half a request is given up after that here, so that many can be tried."""
END = {"Connection": "close"}
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
OF_JSON = frozenset({"200", "400"})
PLACES = ("id", "inputs", "outputs", "parameters", "name", "shape", "datatype", "data")
CHANGES = st.lists(
    st.tuples(st.integers(0, 2**16), st.sampled_from("cxi"), st.binary(max_size=12)), min_size=1, max_size=4
)


def spoiled(good: bytes, changes: list[tuple[int, str, bytes]]) -> bytes:
    """Cut (c), with some bytes exchanged (x), or with some put in (i)."""
    content = bytearray(good)
    for place, how, other in changes:
        at = place % (len(content) + 1)
        if how == "c":
            del content[at:]
        else:
            content[at : at + (len(other) if how == "x" else 0)] = other
    return bytes(content)


@dataclass(frozen=True, slots=True)
class Target:
    """Where bytes go: how they are drawn, how they are sent, and what may come back."""

    name: str
    drawn: st.SearchStrategy[bytes]
    send: Callable[[bytes], str]
    documented: frozenset[str]


def targets(exact: Exact, ports: tuple[int, int], channel: grpc.Channel) -> tuple[Target, ...]:
    """All of them; good requests are the pattern of what is spoiled."""
    scene = Scene(exact, ports, "", "", exact.largest_message())
    z, contract = exact.questions(7, 2), exact.bundle.manifest.contract
    text = json.dumps(head(z, contract)).encode()
    ask, written = channel.unary_unary(INFER), message(z, contract).SerializeToString()
    whole = http_request(text, z.tobytes(), **END)

    def http(sent: bytes) -> str:
        return Line(1, lambda s, r: (sent,), statuses, "shut")(scene, Random(0))

    def whole_http(sent: bytes) -> str:
        return Line(1, lambda s, r: (sent,), statuses, "wait")(scene, Random(0))

    def frames(sent: bytes) -> str:
        return Line(0, lambda s, r: (sent,), over, "shut")(scene, Random(0))

    def call(sent: bytes) -> str:
        error = ask.future(sent, timeout=20).exception()
        return "OK" if error is None else str(error.code().name)

    def put(place: str, value: object) -> bytes:
        asked = json.loads(text)
        (asked if place in PLACES[:4] else asked["inputs"][0])[place] = value
        return http_request(json.dumps(asked).encode(), z.tobytes(), **END)

    of_http = frozenset({"200", "400", "403", "404", "405", "408", "413", "415", CLOSED})
    of_grpc = frozenset({"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"})
    ended = frozenset({REFUSED, CLOSED})
    return (
        Target("HTTP: any bytes", st.binary(max_size=400), http, of_http),
        Target(
            "HTTP: a good request, spoiled", CHANGES.map(lambda c: spoiled(whole[: -z.nbytes], c) + z.tobytes()), http,
            of_http | {"200+400", "400+400"},
        ),
        Target("HTTP: any JSON in any place", st.builds(put, st.sampled_from(PLACES), ANY), whole_http, OF_JSON),
        Target("gRPC: any bytes as message", st.binary(max_size=400), call, of_grpc),
        Target(
            "gRPC: a good message, spoiled", CHANGES.map(lambda c: spoiled(written[: -z.nbytes], c) + z.tobytes()),
            call, of_grpc,
        ),
        Target("gRPC: any frames", st.binary(max_size=400).map(lambda b: PREFACE + b), frames, ended),
    )  # fmt: skip


def tried(target: Target, cases: int, seed: int) -> Counter[str]:
    """What came back, how often."""
    outcomes: Counter[str] = Counter()

    @seeded(seed)
    @settings(
        max_examples=cases, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(sent=target.drawn)
    def once(sent: bytes) -> None:
        outcomes[target.send(sent)] += 1

    once()
    return outcomes


def fuzz_the_wire(exact: Exact, cases: int, seed: int = 0) -> Finding:
    """So many at each target."""
    rows, failures, begun = [], [], time.perf_counter()
    options = ("--read-seconds", str(READ_SECONDS))
    with Victim(exact.bundle, *options) as server, grpc.insecure_channel(server.target) as channel:
        found = targets(exact, (server.grpc_port, server.http_port), channel)
        with task("fuzz at both protocols", len(found)) as show:
            for done, target in enumerate(found):
                outcomes = tried(target, cases, seed)
                for outcome, n in outcomes.items():
                    if outcome not in target.documented or outcome == HANG:
                        failures.append(f"{target.name}: {n} times {outcome}.")
                told = ", ".join(f"{outcome} {n:,}" for outcome, n in sorted(outcomes.items()))
                rows.append((target.name, f"{sum(outcomes.values()):,}", told))
                if not server.alive:
                    failures.append(f"The server died at: {target.name}.")
                    break
                failures += wrong_answers(exact, server.grpc_port, server.http_port, None, 100 + done)
                show(done + 1)
    return Finding(
        title="Fuzz at both protocols",
        ran=f"Bytes drawn by hypothesis (seed {seed}), {cases:,} at each target, {time.perf_counter() - begun:.0f} s "
        "in all. After each target a good request over each protocol was answered, bit for bit.",
        columns=("target", "tried", "seen"), rows=tuple(rows), failures=tuple(failures),
    )  # fmt: skip
