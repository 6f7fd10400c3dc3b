"""Clients that are slow, greedy or many."""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from splitveil.core.errors import InputError
from splitveil.server import server as module
from splitveil.server.limits import Limits
from splitveil.server.server import Server
from splitveil.server.visits import Standing, Visit

from .conftest import Made, ask_with_triton, started
from .test_server import cloud, features
from .test_web import GOOD, INFER, ask, call

READ = 0.4


@contextmanager
def limited(made: Made, limits: Limits, max_batch: int = 8) -> Iterator[Server]:
    with started(lambda: Server(made.bundle, port=0, http_port=0, max_batch=max_batch, limits=limits)) as server:
        yield server


@contextmanager
def raw(server: Server) -> Iterator[socket.socket]:
    assert server.http_port is not None
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as line:
        yield line


def everything(line: socket.socket) -> bytes:
    """Until the server closes."""
    parts = []
    try:
        while part := line.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def answered(line: socket.socket) -> bytes:
    """One JSON answer."""
    got = b""
    while not got.endswith(b"}"):
        part = line.recv(65536)
        assert part, got
        got += part
    return got


def head(path: str = INFER, **headers: object) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def test_silence_and_half_heads_are_cut_off(plain: Made) -> None:
    half = b"POST / HTTP/1.1\r\nHost:"
    with limited(plain, Limits(read_seconds=READ)) as server:
        for sent in (b"", half, b"\r\n"):
            with raw(server) as line:
                start = time.perf_counter()
                line.sendall(sent)
                assert everything(line) == b""
                assert READ / 2 < time.perf_counter() - start < 10
        with raw(server) as line:
            line.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answered(line).startswith(b"HTTP/1.1 200")
            line.sendall(half)
            assert everything(line) == b"", "a half head after a good request"


def test_a_head_that_drips_has_one_deadline(plain: Made) -> None:
    with limited(plain, Limits(read_seconds=READ)) as server, raw(server) as line:
        line.settimeout(READ / 10)
        line.sendall(b"POST /x HTTP/1.1\r\nHost: here\r\nX-Long: ")
        start = time.perf_counter()
        closed = False
        while not closed and time.perf_counter() - start < 15:
            try:
                line.sendall(b"A")
                closed = line.recv(1) == b""
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                closed = True
        assert closed
        assert time.perf_counter() - start < 10


def test_a_body_that_does_not_come_is_answered_and_cut_off(plain: Made) -> None:
    with limited(plain, Limits(read_seconds=READ)) as server:
        for sent in (head(Content_Length=1000) + b"{", head(Transfer_Encoding="chunked") + b"5\r\n{"):
            with raw(server) as line:
                line.sendall(sent)
                answer = everything(line)
                assert answer.startswith(b"HTTP/1.1 408")
                assert b"did not arrive in time" in answer


def test_a_client_that_leaves_is_noted_and_no_failure(plain: Made, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with limited(plain, Limits()) as server:
        with raw(server) as line:
            line.sendall(head(Content_Length=1000) + b"{")
            assert call(server, "GET", "/v2")[0] == 200
        until(lambda: "the client left" in caplog.text)
        assert call(server, "POST", INFER, GOOD)[0] == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_endless_heads_are_refused(plain: Made) -> None:
    with limited(plain, Limits()) as server, raw(server) as line:
        line.sendall(b"GET /v2 HTTP/1.1\r\n" + b"X-Long: y\r\n" * 4000)
        assert everything(line).startswith(b"HTTP/1.1 400")


def test_oversized_bodies_are_refused_before_they_are_read(plain: Made) -> None:
    with limited(plain, Limits(payload=20_000)) as server:
        with raw(server) as line:
            line.sendall(head(Content_Length=2**40))
            answer = everything(line)
            assert answer.startswith(b"HTTP/1.1 413")
            assert b"at most 20000 bytes" in answer
        with raw(server) as line:
            line.sendall(head(Transfer_Encoding="chunked") + b"%x\r\n" % 30_000 + bytes(30_000) + b"\r\n")
            assert everything(line).startswith(b"HTTP/1.1 413")
        small = np.zeros((1, 8, 16, 16), np.float32)
        assert ask(server.http_port, small, True).as_numpy("logits").shape == (1, 5)
        assert ask_with_triton(server.port, small).shape == (1, 5)
        with pytest.raises(InferenceServerException, match="RESOURCE_EXHAUSTED"):
            ask_with_triton(server.port, np.zeros((3, 8, 16, 16), np.float32))


def test_connections_beyond_the_cap_are_told_so_and_health_has_room(plain: Made) -> None:
    """Both that there are at work; a silent or an idle one would leave."""
    entered, go = threading.Event(), threading.Event()
    with limited(plain, Limits(connections=2, reserve=1)) as server, ThreadPoolExecutor(2) as pool:
        hold(server, entered, go)
        try:
            asked = [pool.submit(call, server, "POST", INFER, GOOD) for _ in range(2)]
            assert entered.wait(20)
            until(lambda: server.batcher.waiting == 1)
            assert call(server, "GET", "/v2/health/live")[0] == 200
            status, headers, _ = call(server, "GET", "/v2")
            assert (status, headers.get("retry-after")) == (503, "1")
            with raw(server) as four:
                four.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert answered(four).startswith(b"HTTP/1.1 200")
                assert call(server, "GET", "/v2/health/live")[0] == 200, "the idle one leaves the reserve"
        finally:
            go.set()
        assert [one.result(20)[0] for one in asked] == [200, 200]
        assert call(server, "GET", "/v2")[0] == 200


def test_without_a_place_to_spare_the_answer_is_whole(plain: Made) -> None:
    entered, go = threading.Event(), threading.Event()
    with limited(plain, Limits(connections=1, reserve=1)) as server, ThreadPoolExecutor(2) as pool:
        hold(server, entered, go)
        try:
            asked = [pool.submit(call, server, "POST", INFER, GOOD)]
            assert entered.wait(20)
            reserved = Visit("there", lambda: Standing.AT_WORK, lambda: None)
            assert server._http is not None
            assert server._http._visits.come(reserved)
            with raw(server) as line:
                answer = everything(line)
            assert answer.startswith(b"HTTP/1.1 503")
            body = answer.partition(b"\r\n\r\n")[2]
            assert "too many" in json.loads(body)["error"]
            assert b"content-length: %d\r\n" % len(body) in answer
            server._http._visits.go(reserved)
        finally:
            go.set()
        assert asked[0].result(20)[0] == 200


def test_grpc_connections_beyond_the_cap_are_refused(plain: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEGINNING", 0)
    z = np.zeros((1, 8, 16, 16), np.float32)
    with limited(plain, Limits(connections=2)) as server:
        held = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(2)]
        for line in held:
            assert line.recv(9), "no HTTP/2 settings"
        with pytest.raises(InferenceServerException, match=r"UNAVAILABLE|DEADLINE"):
            ask_with_triton(server.port, z)
        for line in held:
            line.close()
        until(lambda: _answers(server.port, z))


def _answers(port: int, z: NDArray[Any]) -> bool:
    try:
        return ask_with_triton(port, z).shape == (1, 5)
    except InferenceServerException:
        return False


def test_a_full_queue_pushes_back_and_deadlines_hold(plain: Made, images: NDArray[np.float32]) -> None:
    z = features(plain, images[:4])
    entered, go = threading.Event(), threading.Event()
    with limited(plain, Limits(queue=2)) as server, ThreadPoolExecutor(4) as pool:
        hold(server, entered, go)
        try:
            busy = pool.submit(ask_with_triton, server.port, z[:1])
            assert entered.wait(20)
            with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
                tensor = triton.InferInput("z", [1, *z.shape[1:]], "FP32")
                tensor.set_data_from_numpy(z[:1])
                with pytest.raises(InferenceServerException, match="DEADLINE_EXCEEDED"):
                    client.infer("tiny", [tensor], client_timeout=0.2)
                with pytest.raises(InferenceServerException, match="within the request's deadline"):
                    client.infer("tiny", [tensor], timeout=50_000, client_timeout=20)
            status, _, answer = call(server, "POST", INFER, {**GOOD, "parameters": {"timeout": 50_000}})
            assert (status, b"deadline" in answer) == (504, True)
            until(lambda: server.batcher.waiting == 0)
            queued = pool.submit(ask_with_triton, server.port, z[1:3])
            until(lambda: server.batcher.waiting == 2)
            with pytest.raises(InferenceServerException, match=r"RESOURCE_EXHAUSTED.*try again"):
                ask_with_triton(server.port, z[3:4])
            status, headers, answer = call(server, "POST", INFER, GOOD)
            assert (status, headers["retry-after"], b"try again" in answer) == (429, "1", True)
        finally:
            go.set()
        got = np.concatenate([busy.result(20), queued.result(20)])
        np.testing.assert_allclose(got, cloud(plain, z[:3]), rtol=1e-5, atol=1e-5)
        assert ask(server.http_port, z[3:4], True).as_numpy("logits").shape == (1, 5)
        assert sum(server.batcher.batches) == 4, "the model saw a request that nobody waited for"


def hold(server: Server, entered: threading.Event, go: threading.Event) -> None:
    """Make the model wait."""
    run = server.deployments.current.cloud.run

    def held(inputs: Any) -> Any:
        entered.set()
        assert go.wait(20)
        return run(inputs)

    server.deployments.current.cloud.run = held  # type: ignore[method-assign]


def until(true: Callable[[], bool]) -> None:
    for _ in range(2000):
        if true():
            return
        time.sleep(0.005)
    pytest.fail("it did not happen within 10 seconds")


def test_limits_must_be_positive() -> None:
    with pytest.raises(InputError, match="read_seconds"):
        Limits(read_seconds=0)


def test_stalled_clients_do_not_keep_good_ones_waiting(plain: Made, images: NDArray[np.float32]) -> None:
    z = features(plain, images[:1])
    with limited(plain, Limits(read_seconds=5)) as server:
        stalled = [socket.create_connection(("127.0.0.1", server.http_port or 0)) for _ in range(100)]
        for line in stalled:
            line.sendall(head(Content_Length=1000) + b"{")
        with triton_http.InferenceServerClient(f"127.0.0.1:{server.http_port}") as client:
            tensor = triton_http.InferInput("z", list(z.shape), "FP32")
            tensor.set_data_from_numpy(z)
            start = time.perf_counter()
            for _ in range(20):
                np.testing.assert_allclose(
                    client.infer("tiny", [tensor]).as_numpy("logits"), cloud(plain, z), rtol=1e-5, atol=1e-5
                )
            assert time.perf_counter() - start < 4
        for line in stalled:
            line.close()
