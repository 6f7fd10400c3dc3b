"""One meaning of a request: the same refusal over both protocols, in whatever pieces it comes."""

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from splitveil.server.connection import HEAD_BYTES
from splitveil.server.security import Tokens, is_home
from splitveil.server.server import Server
from splitveil.wire.engine import LoadedHalf

from .conftest import Made, started
from .test_limits import everything, raw
from .test_web import GOOD, INFER, call

TOKEN = "a-token-of-this-test-7f3a"
AUTHORIZED = f"Authorization: Bearer {TOKEN}\r\n"
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def server(plain: Made) -> Iterator[Server]:
    with started(lambda: Server(plain.bundle, port=0, http_port=0, max_batch=8)) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(plain: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(TOKEN)
    with started(lambda: Server(plain.bundle, port=0, http_port=0, max_batch=8, tokens=Tokens(path))) as server:
        yield server


def statuses(server: Server, sent: bytes, pieces: int) -> list[int]:
    """Of every answer to these bytes, in one piece or in several, each seen by itself."""
    with raw(server) as line:
        line.setsockopt(6, 1, 1)  # TCP_NODELAY
        size = -(-len(sent) // pieces)
        for start in range(0, len(sent), size):
            try:
                line.sendall(sent[start : start + size])
            except OSError:
                break
            if pieces > 1:
                time.sleep(0.002)
        return [int(part[:3]) for part in everything(line).split(b"HTTP/1.1 ")[1:]]


def posted(head: str, body: bytes = b"", trailer: str = "") -> bytes:
    """A whole request; with a trailer, in chunks."""
    start = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{head}"
    if trailer:
        begun = f"{start}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n"
        return begun.encode() + body + f"\r\n0\r\n{trailer}\r\n".encode()
    return f"{start}Content-Length: {len(body)}\r\n\r\n".encode() + body


BODY = json.dumps(GOOD).encode()
OTHER = "Authorization: Bearer another-token-of-nobody\r\n"


@pytest.mark.parametrize("pieces", [1, 9])
@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (posted(AUTHORIZED, BODY), 200),
        (posted(AUTHORIZED + OTHER, BODY), 401),
        (posted(OTHER + AUTHORIZED, BODY), 401),
        (posted(AUTHORIZED + AUTHORIZED, BODY), 401),
        (posted("", BODY, AUTHORIZED), 401),
        (posted(AUTHORIZED, BODY, "X-Behind: 1\r\n"), 200),
        (posted(AUTHORIZED, BODY, "Content-Encoding: gzip\r\n"), 200),
        (posted(AUTHORIZED + "Transfer-Encoding: gzip, chunked\r\n", b"", ""), 400),
        (posted(AUTHORIZED + "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n", BODY), 415),
        (
            posted(AUTHORIZED + "Inference-Header-Content-Length: 2\r\nInference-Header-Content-Length: 3\r\n", BODY),
            400,
        ),
        (posted(AUTHORIZED, BODY).replace(INFER.encode(), b"http://evil.example" + INFER.encode(), 1), 400),
    ],
)
def test_a_request_means_the_same_in_one_piece_and_in_many(
    guarded: Server, sent: bytes, expected: int, pieces: int
) -> None:
    assert statuses(guarded, sent, pieces) == [expected]


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize(("over", "expected"), [(0, 200), (1, 400), (70_000, 400)])
def test_a_head_has_one_largest_size(server: Server, over: int, expected: int, pieces: int) -> None:
    start = "GET /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Long: "
    sent = start + "y" * (HEAD_BYTES + over - len(start) - 4) + "\r\n\r\n"
    assert statuses(server, sent.encode(), pieces) == [expected]
    many = start + "y\r\n" + "X-Long:  y\r\n" * ((HEAD_BYTES + over - len(start)) // 12 + (over > 0)) + "\r\n"
    assert statuses(server, many.encode(), pieces) == [expected]


@pytest.mark.parametrize("pieces", [1, 40])
def test_what_frames_a_body_is_bounded_too(server: Server, pieces: int) -> None:
    behind = posted("", BODY, "X-Behind: " + "y" * 200_000 + "\r\n")
    assert statuses(server, behind, pieces) == [400]


def test_authorization_twice_is_none_over_both_protocols(guarded: Server) -> None:
    request = grpc_request()
    good, bad = f"Bearer {TOKEN}", "Bearer another-token-of-nobody"
    with grpc.insecure_channel(f"127.0.0.1:{guarded.port}") as channel:
        ask = channel.unary_unary(MODEL_INFER)
        for shown, expected in (((good,), None), ((good, bad), 401), ((bad, good), 401), ((good, good), 401)):
            metadata = tuple(("authorization", value) for value in shown)
            error = ask.future(request.SerializeToString(), timeout=20, metadata=metadata).exception()
            assert (None if error is None else error.code()) == (expected and grpc.StatusCode.UNAUTHENTICATED)


@pytest.mark.parametrize("path", ["/v2/health/live/", "/v2/", "/v2/models/tiny/", "//v2", "/v2/models/tiny/infer/"])
def test_nobody_is_sent_elsewhere(server: Server, path: str) -> None:
    for host in ("localhost", "evil.example"):
        connection = http.client.HTTPConnection("127.0.0.1", server.http_port or 0, timeout=20)
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        assert answer.status == (404 if host == "localhost" else 403)
        assert answer.getheader("location") is None
        connection.close()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("Host: localhost\r\n", 200),
        ("Host: 127.0.0.1:8000\r\n", 200),
        ("Host: [::1]:8000\r\n", 200),
        ("Host: LOCALHOST\r\n", 200),
        ("Host: evil.example\r\n", 403),
        ("Host: localhost.evil.example\r\n", 403),
        ("Host: 127.0.0.1.evil.example\r\n", 403),
        ("Host: 10.0.0.1\r\n", 403),
        ("Host: localhost\r\nHost: evil.example\r\n", 403),
        ("Host: \r\n", 403),
        ("", 403),
        ("Host: localhost\r\nOrigin: http://evil.example\r\n", 403),
        ("Host: localhost\r\nOrigin: null\r\n", 403),
    ],
)
def test_a_page_in_a_browser_here_is_answered_nothing(server: Server, fields: str, expected: int) -> None:
    for path in ("/v2", "/v2/health/ready", "/v2/models/tiny/config"):
        sent = f"GET {path} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n"
        assert statuses(server, sent.encode(), 1) == [expected]


def test_where_there_are_tokens_a_host_may_have_any_name(guarded: Server) -> None:
    sent = posted(AUTHORIZED, BODY).replace(b"localhost", b"server.example")
    assert statuses(guarded, sent, 1) == [200]


def test_names_of_this_machine() -> None:
    assert all(is_home(host) for host in ("localhost", "localhost:80", "127.8.8.8:1", "[::1]", "::1"))
    assert not any(is_home(host) for host in ("", ":80", "localhost:80:80", "[::1", "evil", "localhost:x", "0.0.0.0"))


def grpc_request() -> Any:
    request = service_pb2.ModelInferRequest(model_name="tiny")
    request.inputs.add(name="z", datatype="FP32", shape=[1, 8, 16, 16])
    request.raw_input_contents.append(bytes(4 * 8 * 16 * 16))
    return request


def grpc_error(server: Server, request: Any) -> tuple[str, str]:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        error = channel.unary_unary(MODEL_INFER).future(request.SerializeToString(), timeout=20).exception()
    return ("OK", "") if error is None else (error.code().name, error.details())


def test_an_answer_of_nan_is_an_error_over_grpc_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = LoadedHalf.run
    monkeypatch.setattr(LoadedHalf, "run", lambda half, given: answered(half, given) * np.nan)
    status, said = grpc_error(server, grpc_request())
    assert (status, "NaN or infinity" in said) == ("INTERNAL", True)
    assert call(server, "POST", INFER, GOOD)[0] == 500


INPUT = GOOD["inputs"][0]


@pytest.mark.parametrize(
    "asked",
    [
        {**GOOD, "parameters": {"sequence_id": 7}},
        {**GOOD, "parameters": {"classification": 2}},
        {**GOOD, "parameters": {"timeout": "5"}},
        {**GOOD, "parameters": {"timeout": True}},
        {**GOOD, "parameters": {"binary_data_output": 1}},
        {**GOOD, "outputs": [{"name": "logits", "parameters": {"classification": 2}}]},
        {**GOOD, "outputs": [{"name": "logits"}, {"name": "logits", "parameters": {"class_count": 2}}]},
        {**GOOD, "outputs": [{"name": "logits", "parameters": {"shared_memory_region": "a"}}]},
        {"inputs": [{**INPUT, "parameters": {"shared_memory_region": "a"}}]},
    ],
)
def test_what_is_not_served_is_refused_and_not_left_out(server: Server, asked: Any) -> None:
    status, _, answer = call(server, "POST", INFER, asked)
    assert (status, "no other parameters" in json.loads(answer)["error"]) == (400, True)


def test_over_grpc_too(server: Server) -> None:
    for key, kind in (("sequence_id", "int64_param"), ("timeout", "string_param"), ("contract", "int64_param")):
        request = grpc_request()
        setattr(request.parameters[key], kind, 7 if kind == "int64_param" else "7")
        assert grpc_error(server, request)[0] == "INVALID_ARGUMENT"
    request = grpc_request()
    request.outputs.add(name="logits").parameters["classification"].int64_param = 2
    status, said = grpc_error(server, request)
    assert (status, "no classes" in said) == ("INVALID_ARGUMENT", True)
    request = grpc_request()
    request.inputs[0].contents.fp32_contents.extend([0.5] * 2048)
    assert "one of the two ways" in grpc_error(server, request)[1]


@pytest.mark.parametrize(
    "body",
    [
        BODY.replace(b'{"inputs"', b'{"inputs": [], "inputs"', 1),
        BODY.replace(b'"shape"', b'"shape": [2], "shape"', 1),
        BODY.decode().encode("utf-16"),
        b"\xef\xbb\xbf" + BODY,
    ],
)
def test_json_has_one_reading(server: Server, body: bytes) -> None:
    status, _, answer = call(server, "POST", INFER, body)
    assert (status, b"each key once" in answer) == (400, True)


def test_a_tensor_comes_in_one_way(server: Server) -> None:
    content = bytes(4 * 2048)
    head = json.dumps({"inputs": [{**INPUT, "parameters": {"binary_data_size": len(content)}}]}).encode()
    told = {"Inference-Header-Content-Length": str(len(head))}
    status, _, answer = call(server, "POST", INFER, head + content, told)
    assert (status, b"one of the two ways" in answer) == (400, True)


def test_streams_are_refused_in_a_sentence(server: Server) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        for method, words in (("ModelStreamInfer", "call ModelInfer for each"), ("ModelTrain", "no such method")):
            ask = channel.stream_stream(f"/inference.GRPCInferenceService/{method}")
            with pytest.raises(grpc.RpcError) as caught:
                list(ask(iter([grpc_request().SerializeToString()]), timeout=20))
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
            assert words in caught.value.details()
