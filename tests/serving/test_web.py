"""The protocol over HTTP, with NVIDIA's client as it comes and by hand."""

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from splitveil.server.server import Server
from splitveil.wire import compression
from splitveil.wire.engine import LoadedHalf

from .conftest import Made, ask_with_triton, started
from .test_server import cloud, features

ROW = 8 * 16 * 16
HEAD = "Inference-Header-Content-Length"
INFER = "/v2/models/tiny/infer"
GOOD = {"inputs": [{"name": "z", "datatype": "FP32", "shape": [1, 8, 16, 16], "data": [0.5] * ROW}]}


@pytest.fixture(scope="module")
def server(plain: Made) -> Iterator[Server]:
    with started(lambda: Server(plain.bundle, port=0, http_port=0, max_batch=8)) as server:
        yield server


def call(
    server: Server, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers in lower case, body."""
    assert server.http_port is not None
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=20)
    try:
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, content, headers or {})
        answer = connection.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def ask(port: int | None, z: NDArray[Any], binary: bool, row_id: str = "") -> Any:
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        tensor = triton.InferInput("z", list(z.shape), "UINT8" if z.dtype == np.uint8 else "FP32")
        tensor.set_data_from_numpy(z, binary_data=binary)
        output = triton.InferRequestedOutput("logits", binary_data=binary)
        return client.infer("tiny", [tensor], outputs=[output], request_id=row_id)


@pytest.mark.parametrize("binary", [True, False])
def test_an_unmodified_client_gets_what_torch_computes(
    server: Server, plain: Made, images: NDArray[np.float32], binary: bool
) -> None:
    z = features(plain, images[:3])
    answer = ask(server.http_port, z, binary, "seven")
    np.testing.assert_allclose(answer.as_numpy("logits"), cloud(plain, z), rtol=1e-5, atol=1e-5)
    assert answer.get_response()["id"] == "seven"
    assert "id" not in ask(server.http_port, z, binary).get_response()


def test_outputs_are_binary_by_the_request_wide_wish_too(
    server: Server, plain: Made, images: NDArray[np.float32]
) -> None:
    z = features(plain, images[:1])
    with triton.InferenceServerClient(f"127.0.0.1:{server.http_port}") as client:
        tensor = triton.InferInput("z", list(z.shape), "FP32")
        tensor.set_data_from_numpy(z)
        got = client.infer("tiny", [tensor], model_version="1").as_numpy("logits")
    np.testing.assert_array_equal(got, ask_with_triton(server.port, z))


def test_codes_of_a_defended_bundle(noisy: Made, images: NDArray[np.float32]) -> None:
    z = features(noisy, images[:2])
    with (
        started(lambda: Server(noisy.bundle, port=0, http_port=0)) as server,
        triton.InferenceServerClient(f"127.0.0.1:{server.http_port}") as client,
    ):
        for binary in (True, False):
            tensor = triton.InferInput("z", list(z.shape), "UINT8")
            tensor.set_data_from_numpy(z, binary_data=binary)
            with pytest.raises(InferenceServerException, match="the defence noise"):
                client.infer("tiny", [tensor])
            got = client.infer("tiny", [tensor], parameters={"contract": noisy.bundle.manifest.contract})
            np.testing.assert_allclose(got.as_numpy("logits"), cloud(noisy, z), rtol=1e-5, atol=1e-5)


def test_metadata_follow_the_protocol(server: Server, plain: Made) -> None:
    with triton.InferenceServerClient(f"127.0.0.1:{server.http_port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.is_model_ready("tiny", "1")
        assert not client.is_model_ready("other")
        assert client.get_server_metadata()["name"] == "splitveil"
        told = client.get_model_metadata("tiny", "1")
        assert told["inputs"] == [{"name": "z", "datatype": "FP32", "shape": [-1, 8, 16, 16]}]
        assert told["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 5]}]
        assert told["versions"] == ["1"]
        config = client.get_model_config("tiny")
        assert config["max_batch_size"] == 8
        assert config["parameters"]["contract"]["string_value"] == plain.bundle.manifest.contract
        assert client.get_model_repository_index() == [{"name": "tiny", "version": "1", "state": "READY"}]
        with pytest.raises(InferenceServerException, match="only 'tiny' version 1"):
            client.get_model_metadata("tiny", "2")


BAD: dict[str, tuple[Any, str, int]] = {
    "no json": (b"{", "not JSON", 400),
    "bad utf-8": (b'{"id": "\xff"}', "not JSON", 400),
    "deep": (b"[" * 50_000, "not JSON", 400),
    "long integer": (b'{"id": ' + b"9" * 20_000 + b"}", "not JSON", 400),
    "array": ([], "not a JSON object", 400),
    "number as id": ({**GOOD, "id": 7}, "string as id", 400),
    "parameters": ({**GOOD, "parameters": []}, "parameters as a JSON object", 400),
    "no input": ({"inputs": []}, "exactly one input", 400),
    "no object": ({"inputs": ["z"]}, "exactly one input", 400),
    "outputs": ({**GOOD, "outputs": "logits"}, "outputs is not a list", 400),
    "other output": ({**GOOD, "outputs": [{"name": "z"}]}, "only output is 'logits'", 400),
    "other name": ({"inputs": [{**GOOD["inputs"][0], "name": "x"}]}, "one input 'z'", 400),
    "name as list": ({"inputs": [{**GOOD["inputs"][0], "name": ["z"]}]}, "one input 'z'", 400),
    "other type": ({"inputs": [{**GOOD["inputs"][0], "datatype": "UINT8"}]}, "datatype FP32", 400),
    "shape as text": ({"inputs": [{**GOOD["inputs"][0], "shape": "1"}]}, "list of integers", 400),
    "shape of floats": ({"inputs": [{**GOOD["inputs"][0], "shape": [1.0, 8, 16, 16]}]}, "list of integers", 400),
    "huge shape": ({"inputs": [{**GOOD["inputs"][0], "shape": [2**40, 8, 16, 16]}]}, "1 to 8 rows", 400),
    "endless shape": ({"inputs": [{**GOOD["inputs"][0], "shape": [10**4000, 8, 16, 16]}]}, "1 to 8 rows", 400),
    "no rows": ({"inputs": [{**GOOD["inputs"][0], "shape": [0, 8, 16, 16], "data": []}]}, "1 to 8 rows", 400),
    "negative": ({"inputs": [{**GOOD["inputs"][0], "shape": [-1, 8, 16, 16]}]}, "1 to 8 rows", 400),
    "too few": ({"inputs": [{**GOOD["inputs"][0], "data": [0.5]}]}, "2048 values", 400),
    "ragged": ({"inputs": [{**GOOD["inputs"][0], "data": [[1], [1, 2]]}]}, "values", 400),
    "no data": ({"inputs": [{"name": "z", "datatype": "FP32", "shape": [1, 8, 16, 16]}]}, "values", 400),
    "words": ({"inputs": [{**GOOD["inputs"][0], "data": ["a"] * ROW}]}, "send numbers", 400),
    "truths": ({"inputs": [{**GOOD["inputs"][0], "data": [True] * ROW}]}, "send numbers", 400),
    "nan": ({"inputs": [{**GOOD["inputs"][0], "data": [float("nan")] * ROW}]}, "NaN", 400),
    "beyond float32": ({"inputs": [{**GOOD["inputs"][0], "data": [1e300] * ROW}]}, "infinity", 400),
    "big integers": ({"inputs": [{**GOOD["inputs"][0], "data": [10**50] * ROW}]}, "send numbers", 400),
    "contract": ({**GOOD, "parameters": {"contract": "0" * 32}}, "expected contract", 400),
    "contract as list": ({**GOOD, "parameters": {"contract": []}}, "expected contract", 400),
    "size but no content": (
        {"inputs": [{**GOOD["inputs"][0], "parameters": {"binary_data_size": 4}}]}, "binary_data_size", 400,
    ),
}  # fmt: skip


def test_an_answer_of_nan_is_an_error_and_no_number(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = LoadedHalf.run
    monkeypatch.setattr(LoadedHalf, "run", lambda half, given: answered(half, given) * np.nan)
    status, _, answer = call(server, "POST", INFER, GOOD)
    assert status == 500
    assert "NaN or infinity" in json.loads(answer)["error"]


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_named(server: Server, name: str) -> None:
    body, words, expected = BAD[name]
    status, _, answer = call(server, "POST", INFER, body)
    sentence = json.loads(answer)["error"]
    assert status == expected
    assert words in sentence
    assert sentence.endswith(".")
    assert len(sentence) < 400


@pytest.mark.parametrize("length", ["-1", "1e3", "99999999", "x", "9" * 400, "\u0663"])
def test_wrong_lengths_of_the_head_are_refused(server: Server, length: str) -> None:
    status, _, answer = call(server, "POST", INFER, GOOD, {HEAD: length.encode().decode("latin-1")})
    assert (status, b"Inference-Header-Content-Length" in answer) == (400, True)


def test_binary_content_must_be_all_there_is(server: Server) -> None:
    for told, sent, words in ((ROW * 4, ROW * 4 - 1, b"binary_data_size"), (8, 8, b"expected 8192 bytes")):
        head = json.dumps(
            {"inputs": [{**GOOD["inputs"][0], "data": None, "parameters": {"binary_data_size": told}}]}
        ).encode()
        status, _, answer = call(server, "POST", INFER, head + bytes(sent), {HEAD: str(len(head))})
        assert (status, words in answer) == (400, True)


def test_packed_content_is_unpacked(server: Server, plain: Made, images: NDArray[np.float32]) -> None:
    z = features(plain, images[:2])
    packed = compression.pack(z.tobytes(), compression.ZSTD)
    one = {"name": "z", "datatype": "FP32", "shape": list(z.shape), "parameters": {"binary_data_size": len(packed)}}
    asked = {"inputs": [one], "parameters": {compression.PARAMETER: compression.ZSTD}}
    head = json.dumps(asked).encode()
    status, _, answer = call(server, "POST", INFER, head + packed, {HEAD: str(len(head))})
    assert status == 200
    got = np.reshape(json.loads(answer)["outputs"][0]["data"], (2, 5))
    np.testing.assert_allclose(got, cloud(plain, z), rtol=1e-5, atol=1e-5)


def test_other_paths_methods_and_encodings(server: Server) -> None:
    for method, path, expected in (
        ("GET", "/", 404),
        ("GET", INFER, 405),
        ("POST", "/v2/models/other/infer", 404),
        ("POST", "/v2/models/tiny/versions/2/infer", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/%ff%00", 404),
    ):
        status, _, answer = call(server, method, path, GOOD if method == "POST" else None)
        assert status == expected, path
        assert json.loads(answer)["error"].endswith(".")
    assert call(server, "POST", INFER, GOOD, {"Content-Encoding": "gzip"})[0] == 415


def test_both_protocols_share_batches_and_every_answer_finds_its_question(
    server: Server, plain: Made, images: NDArray[np.float32]
) -> None:
    z = features(plain, images)
    expected = cloud(plain, z)

    def grpc_row(i: int) -> None:
        np.testing.assert_allclose(
            ask_with_triton(server.port, z[i : i + 1]), expected[i : i + 1], rtol=1e-5, atol=1e-5
        )

    def http_row(i: int) -> None:
        got = ask(server.http_port, z[i : i + 1], i % 2 == 0).as_numpy("logits")
        np.testing.assert_allclose(got, expected[i : i + 1], rtol=1e-5, atol=1e-5)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(way, i) for i in range(64) for way in (grpc_row, http_row)]:
            done.result(60)
