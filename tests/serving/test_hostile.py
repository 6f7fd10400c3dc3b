"""Requests that nobody would send by mistake: no crash, no hang, a status that fits, and others never notice."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from splitveil.server.limits import Limits
from splitveil.server.server import Server

from .conftest import Made, ask_with_triton, started
from .test_contract import request
from .test_limits import everything
from .test_server import cloud, features
from .test_web import GOOD, INFER, call

TRIES = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
ROW = 4 * 8 * 16 * 16
INPUT = {"name": "z", "datatype": "FP32", "shape": [1, 8, 16, 16], "parameters": {"binary_data_size": ROW}}
HEAD = json.dumps({"id": "a", "inputs": [INPUT], "outputs": [{"name": "logits", "parameters": {"binary_data": True}}]})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def server(plain: Made) -> Iterator[Server]:
    limits = Limits(read_seconds=5, payload=200_000)
    with started(lambda: Server(plain.bundle, port=0, http_port=0, max_batch=8, limits=limits)) as server:
        yield server


@pytest.fixture(scope="module")
def hasty(plain: Made) -> Iterator[Server]:
    """One that waits for nobody."""
    with started(
        lambda: Server(plain.bundle, port=0, http_port=0, limits=Limits(read_seconds=0.2, idle_seconds=1))
    ) as server:
        yield server
        assert call(server, "POST", INFER, GOOD)[0] == 200


@pytest.fixture(autouse=True)
def unharmed(server: Server, plain: Made, images: NDArray[np.float32]) -> Iterator[None]:
    """After each test the server still answers, and rightly."""
    yield
    z = features(plain, images[:2])
    np.testing.assert_allclose(ask_with_triton(server.port, z), cloud(plain, z), rtol=1e-5, atol=1e-5)
    assert status(server, whole(HEAD.encode(), bytes(ROW))) == 200


def whole(head: bytes, content: bytes, **headers: str) -> bytes:
    told = {"Host": "localhost", "Content-Length": str(len(head) + len(content))}
    told |= {"Inference-Header-Content-Length": str(len(head)), "Connection": "close"} | headers
    lines = "\r\n".join([f"POST {INFER} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())])
    return lines.encode("utf-8", "surrogatepass") + b"\r\n\r\n" + head + content


def status(server: Server, sent: bytes) -> int:
    """Of the first answer; 0 if the connection was closed without one, as it is after half a head."""
    assert server.http_port is not None
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as line:
        with suppress(OSError):
            line.sendall(sent)
        answer = everything(line)
    return int(answer[9:12]) if answer else 0


def spoiled(given: bytes, draw: st.DataObject) -> bytes:
    """Cut, with some bytes changed, or with some put in."""
    content = bytearray(given)
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(content) - 1)) if content else 0
        match draw.draw(st.sampled_from(["cut", "change", "insert"])):
            case "cut":
                del content[at:]
            case "change" if content:
                content[at] = draw.draw(st.integers(0, 255))
            case _:
                content[at:at] = draw.draw(st.binary(max_size=16))
    return bytes(content)


@settings(TRIES, max_examples=60)
@given(draw=st.data())
def test_spoiled_http_requests(hasty: Server, draw: st.DataObject) -> None:
    line = whole(HEAD.encode(), bytes(ROW))
    end = line.index(b"\r\n\r\n") + 4 + len(HEAD)
    assert status(hasty, spoiled(line[:end], draw) + line[end:]) in (0, 200, 400, 403, 404, 405, 408, 413, 415)


@TRIES
@given(draw=st.data())
def test_spoiled_heads_in_whole_requests(server: Server, draw: st.DataObject) -> None:
    assert status(server, whole(spoiled(HEAD.encode(), draw), bytes(ROW))) in (200, 400)


@TRIES
@given(
    key=st.sampled_from(["id", "inputs", "outputs", "parameters", "name", "shape", "datatype", "data"]), value=VALUES
)
def test_any_json_in_any_place(server: Server, key: str, value: object) -> None:
    head = json.loads(HEAD)
    (head if key in ("id", "inputs", "outputs", "parameters") else head["inputs"][0])[key] = value
    assert status(server, whole(json.dumps(head).encode(), bytes(ROW))) in (200, 400)


@TRIES
@given(draw=st.data())
def test_spoiled_messages_over_grpc(server: Server, draw: st.DataObject) -> None:
    message = spoiled(request(rows=1).SerializeToString()[:160], draw) + bytes(ROW)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        error = ask.future(message, timeout=20).exception()
    assert error is None or error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND), error


@TRIES
@given(content=st.binary(max_size=400))
def test_noise_on_the_grpc_port(server: Server, content: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
        line.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + content)
        line.shutdown(socket.SHUT_WR)
        everything(line)
