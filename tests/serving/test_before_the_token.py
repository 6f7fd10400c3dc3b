"""Strangers cost nothing: calls without their message, silent connections, blown-up numbers, lines of a log."""

import json
import logging
import resource
import socket
import ssl
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from splitveil.server.descriptors import OTHERS, affordable
from splitveil.server.journal import JsonLines, Lines, Quiet
from splitveil.server.limits import Limits
from splitveil.server.security import Tls, Tokens
from splitveil.server.server import Server
from splitveil.server.visits import Standing, Visit, Visits
from splitveil.wire.contract import BrokenRuleError, RequestRules

from .conftest import Made, ask_with_triton, started
from .test_limits import answered, everything, limited, raw, until
from .test_server import cloud, features
from .test_tls import World, made_world, over_http
from .test_web import GOOD, INFER, call

SERVICE = "/inference.GRPCInferenceService/"
METHODS = (
    "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig", "RepositoryIndex",
    "ModelInfer", "ModelStreamInfer", "ModelTrain",
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return made_world(tmp_path_factory.mktemp("tls"))


@contextmanager
def half_open(port: int, calls: list[tuple[str, Any]]) -> Iterator[list[Any]]:
    """Calls on one connection whose message never comes: method and metadata of each."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with ExitStack() as stack:
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}", options))
        over = threading.Event()

        def never() -> Iterator[bytes]:
            over.wait(30)
            yield from ()

        made = [channel.stream_unary(SERVICE + method).future(never(), metadata=shown) for method, shown in calls]
        try:
            yield made
        finally:
            over.set()
            for one in made:
                one.cancel()


def code(one: Any) -> str:
    error = one.exception(timeout=20)
    return "OK" if error is None else str(error.code().name)


def test_no_message_is_awaited_from_who_shows_no_token(plain: Made, world: World) -> None:
    with (
        started(lambda: Server(plain.bundle, port=0, tokens=Tokens(world.token_file))) as server,
        half_open(server.port, [(method, None) for method in METHODS]) as made,
    ):
        found = {method: code(one) for method, one in zip(METHODS, made, strict=True)}
        assert found == dict.fromkeys(METHODS, "UNAUTHENTICATED") | {"ServerLive": "OK", "ServerReady": "OK"}
        assert server.front.arrivals.waiting == 0


def test_calls_without_their_message_shut_nobody_out(plain: Made, images: NDArray[np.float32]) -> None:
    """Every place is taken, and taken again; the oldest of them leave, and good clients notice nothing."""
    z = features(plain, images[:2])
    waiting = [(method, None) for method in ("ModelMetadata", "ModelInfer", "ModelConfig", "RepositoryIndex")] * 10
    with started(lambda: Server(plain.bundle, port=0)) as server, ExitStack() as stack:
        server.front.arrivals._most = 20
        made = stack.enter_context(half_open(server.port, waiting))
        until(lambda: sum(one.done() for one in made) == 20)
        for _ in range(5):
            np.testing.assert_allclose(ask_with_triton(server.port, z), cloud(plain, z), rtol=1e-5, atol=1e-5)
        assert {code(one) for one in made if one.done()} == {"DEADLINE_EXCEEDED"}
        assert server.front.arrivals.waiting <= 20
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            live = channel.unary_unary(SERVICE + "ServerLive", None, service_pb2.ServerLiveResponse.FromString)
            assert live(b"", timeout=5).live


def test_every_method_has_a_deadline_for_its_message(plain: Made) -> None:
    methods = [method for method in METHODS if method.startswith("Model") and not method.endswith(("Train", "mInfer"))]
    with (
        started(lambda: Server(plain.bundle, port=0, limits=Limits(read_seconds=0.2))) as server,
        half_open(server.port, [(method, None) for method in methods]) as made,
    ):
        assert {code(one) for one in made} == {"DEADLINE_EXCEEDED"}
        assert server.front.arrivals.waiting == 0


def test_silent_connections_push_out_each_other(plain: Made) -> None:
    """And neither those that were answered before nor new ones."""
    with limited(plain, Limits(connections=8, reserve=1)) as server, ExitStack() as stack:
        known = stack.enter_context(raw(server))
        known.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answered(known).startswith(b"HTTP/1.1 200")
        for _ in range(40):
            stack.enter_context(raw(server)).sendall(b"GET /v2 HT")
        assert call(server, "GET", "/v2/health/live")[0] == 200
        assert call(server, "POST", INFER, GOOD)[0] == 200
        known.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answered(known).startswith(b"HTTP/1.1 200")
        assert server._http is not None
        assert server._http.connections <= 8


def test_handshakes_that_do_not_come_are_counted_and_end(
    plain: Made,
    world: World,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tls = Tls(world.server.certificate, world.server.key)
    limits = Limits(connections=6, reserve=1, handshake_seconds=0.3)
    with started(lambda: Server(plain.bundle, port=0, http_port=0, tls=tls, limits=limits)) as server:
        assert server._http is not None
        with ExitStack() as stack:
            lines = [stack.enter_context(raw(server)) for _ in range(30)]
            until(lambda: server._http is not None and server._http.connections == 6)
            assert over_http(server, world.servers.path)[0] == 200
            assert everything(lines[-1]) == b""
            half = stack.enter_context(raw(server))
            half.sendall(b"\x16\x03\x01\x02")
            assert everything(half) == b""
            bad = stack.enter_context(raw(server))
            bad.sendall(b"GET / HTTP/1.1\r\n\r\n")
            everything(bad)
        until(lambda: server._http is not None and server._http.connections == 0)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING and "expires in" not in r.getMessage()] == []


def test_who_leaves_first() -> None:
    gone: list[str] = []

    def visit(name: str, address: str, standing: Standing) -> Visit:
        return Visit(address, lambda: standing, lambda: gone.append(name))

    visits = Visits(5, 1)
    for name, address, standing in (
        ("work", "a", Standing.AT_WORK), ("idle", "a", Standing.IDLE), ("alone", "b", Standing.STRANGE),
        ("old", "c", Standing.STRANGE), ("young", "c", Standing.STRANGE), ("new", "d", Standing.SENDING),
        ("next", "d", Standing.AT_WORK), ("later", "d", Standing.AT_WORK), ("more", "d", Standing.AT_WORK),
        ("last", "d", Standing.AT_WORK),
    ):  # fmt: skip
        assert visits.come(visit(name, address, standing))
    assert gone == ["old", "alone", "young", "new", "idle"]
    reserved = visit("reserved", "e", Standing.AT_WORK)
    assert visits.come(reserved)
    assert reserved.reserved
    assert not visits.come(visit("too many", "f", Standing.STRANGE))
    assert len(visits) == 6
    reserved.standing = lambda: Standing.STRANGE
    another = visit("another", "f", Standing.STRANGE)
    assert visits.come(another)
    assert another.reserved, "what leaves the reserve leaves no other place"


def test_there_are_descriptors_for_every_connection() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        assert affordable(1000) == min(1000, before[1] - OTHERS)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(1000 + OTHERS, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


BLOWN: dict[str, Any] = {
    "one long word": ["x" * 60_000] + ["a"] * 2047,
    "long words": ["x" * 20] * 2048,
    "numbers as words": ["1.5"] * 2048,
    "nested words": [[["x" * 50_000] * 16] * 16] * 8,
    "empty lists": [[]] * 2048,
    "deep": json.loads("[" * 800 + "]" * 800),
    "one deep number": json.loads("[" * 800 + "1" + "]" * 800),
    "too many": [[0.5] * 2048] * 50,
    "objects": [{}] * 2048,
    "truths among numbers": [0.5] * 2047 + [True],
    "nothing among numbers": [0.5] * 2047 + [None],
    "a list among numbers": [0.5] * 2047 + [[0.5]],
    "a number among lists": [[0.5] * 1024, 0.5],
    "one text": "1" * 2048,
    "an object": {"0": 1},
    "a number": 7,
}


@pytest.mark.parametrize("name", BLOWN)
def test_numbers_are_looked_at_before_an_array_is_made(plain: Made, noisy: Made, name: str) -> None:
    for made in (plain, noisy):
        rules = RequestRules(made.bundle.manifest, 8)
        tracemalloc.start()
        try:
            with pytest.raises(BrokenRuleError):
                rules.typed(BLOWN[name], (1, 8, 16, 16))
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()


def test_numbers_come_flat_or_nested(plain: Made, images: NDArray[np.float32]) -> None:
    rules = RequestRules(plain.bundle.manifest, 8)
    z = features(plain, images[:2])
    for values in (z.tolist(), z.ravel().tolist(), z.reshape(2, -1).tolist()):
        np.testing.assert_array_equal(rules.typed(values, z.shape), z)
    whole = np.round(10 * z).astype(int)
    np.testing.assert_array_equal(rules.typed(whole.tolist(), z.shape), whole.astype(np.float32))


def test_the_port_of_metrics_is_as_bounded(plain: Made) -> None:
    with started(lambda: Server(plain.bundle, port=0, metrics_port=0)) as server, ExitStack() as stack:
        port = server.metrics_port or 0
        lines = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)) for _ in range(60)]
        until(lambda: server._scraped is not None and server._scraped.connections == 32)
        for host, expected in (("127.0.0.1", b"200"), ("localhost:1", b"200"), ("evil.example", b"403")):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            line.sendall(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            assert everything(line)[9:12] == expected, host
        assert everything(lines[0]) == b""


def test_lines_of_one_kind_are_counted_instead_of_written() -> None:
    now = [0.0]
    quiet = Quiet(burst=3, rate=1.0, clock=lambda: now[0])

    def lines(count: int, message: str = "refused: %s", **more: object) -> list[logging.LogRecord]:
        made = [logging.LogRecord("x", logging.INFO, "", 0, message, (i,), None) for i in range(count)]
        for record in made:
            vars(record).update(more)
        return [record for record in made if quiet.filter(record)]

    assert len(lines(100, reason="token")) == 3
    assert len(lines(2, reason="contract")) == 2, "another kind"
    now[0] = 1.0
    [one] = lines(1, reason="token")
    assert one.getMessage() == "refused: 0 (97 more like this were not written)"
    for i in range(5000):
        lines(1, message=f"{i} %s")
    assert len(quiet._kinds) < 400


def test_names_in_a_line_of_the_log_obey_nobody() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "not replaced: %s", ("\x1b[2J\nfake\u202e",), None)
    for form in (Lines(), JsonLines()):
        line = form.format(record)
        assert "\x1b" not in line
        assert "\n" not in line


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01", b"", b"\x80" * 100], ids=["half", "none", "noise"])
def test_a_broken_handshake_is_no_line_of_the_log(
    plain: Made,
    world: World,
    caplog: pytest.LogCaptureFixture,
    sent: bytes,
) -> None:
    tls = Tls(world.server.certificate, world.server.key)
    with started(lambda: Server(plain.bundle, port=0, http_port=0, tls=tls)) as server:
        for _ in range(5):
            with raw(server) as line:
                line.sendall(sent)
                line.shutdown(socket.SHUT_WR)
                everything(line)
        context = ssl.create_default_context(cafile=str(world.strangers.path))
        with raw(server) as line, pytest.raises(ssl.SSLError):
            context.wrap_socket(line, server_hostname="localhost")
    assert [r for r in caplog.records if r.levelno >= logging.WARNING and "expires in" not in r.getMessage()] == []
