"""The Ray Serve application: the copy without Ray, what Ray is told, and Ray itself where it is installed."""

import asyncio
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load, save
from starlette.requests import Request
from starlette.responses import Response

from splitveil.core.errors import BundleError, InputError, MissingExtraError
from splitveil.server import ray_app
from splitveil.server.ray_app import Replica, application
from splitveil.wire.bundle import GOLDEN, Bundle, write_bundle, write_half
from tests.serving.conftest import Made

HEAD = "inference-header-content-length"


def asked(bundle: Bundle, z: NDArray[Any], headers: dict[str, str] | None = None) -> Request:
    """A request as Ray's proxy hands it on."""
    m, content = bundle.manifest, z.tobytes()
    tensor = {
        "name": "z", "datatype": m.features.datatype, "shape": z.shape, "parameters": {"binary_data_size": len(content)}
    }  # fmt: skip
    told = {"inputs": [tensor], "parameters": {"contract": m.contract, "binary_data_output": True}, "id": "7"}
    head = json.dumps(told).encode()
    body = [head[:10], head[10:] + content]
    known = {HEAD: str(len(head)), **(headers or {})}
    scope = {
        "type": "http", "method": "POST", "path": f"/v2/models/{m.name}/infer", "query_string": b"", "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in known.items()],
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body.pop(0), "more_body": bool(body)}

    return Request(scope, receive)


def logits(answer: Response) -> NDArray[np.float32]:
    head = json.loads(bytes(answer.body)[: int(answer.headers[HEAD])])
    assert head["id"] == "7"
    [output] = head["outputs"]
    return np.frombuffer(bytes(answer.body)[int(answer.headers[HEAD]) :], "<f4").reshape(output["shape"])


def test_each_request_gets_its_own_answer(noisy: Made, tmp_path: Path) -> None:
    half = write_half(noisy.bundle, "cloud", tmp_path / "cloud")
    golden = load(half.read(GOLDEN))

    async def both() -> list[Response]:
        replica = Replica(str(half.folder))
        replica.check_health()
        return await asyncio.gather(*(replica(asked(half, z)) for z in (golden["z"], golden["z"][:1], golden["z"][1:])))

    answers = asyncio.run(both())
    for answer, expected in zip(answers, (golden["logits"], golden["logits"][:1], golden["logits"][1:]), strict=True):
        assert answer.status_code == 200
        np.testing.assert_allclose(logits(answer), expected, rtol=1e-4, atol=1e-4)


def test_rules_and_tokens_hold_here_too(noisy: Made, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("a-token-of-some-length\n")
    (tmp_path / "tokens").chmod(0o600)
    z = load(noisy.bundle.read(GOLDEN))["z"]

    async def answers() -> list[Response]:
        replica = Replica(str(noisy.bundle.folder), 64, str(tmp_path / "tokens"))
        known = {"authorization": "Bearer a-token-of-some-length"}
        wrong = np.concatenate([z, z], axis=1)
        tried = [(z, None), (wrong, known), (z, known)]
        return [await replica(asked(noisy.bundle, given, headers)) for given, headers in tried]

    stranger, misshapen, good = asyncio.run(answers())
    assert [a.status_code for a in (stranger, misshapen, good)] == [401, 400, 200]
    assert "expected shape" in json.loads(bytes(misshapen.body))["error"]


def test_a_copy_of_a_wrong_bundle_does_not_start(noisy: Made, plain: Made, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected the cloud half"):
        Replica(str(write_half(noisy.bundle, "edge", tmp_path / "edge").folder))
    files: dict[str, bytes | Path] = {n: noisy.bundle.folder / n for n in noisy.bundle.manifest.files}
    golden = load(noisy.bundle.read(GOLDEN))
    files[GOLDEN] = save({"z": golden["z"], "logits": golden["logits"] + 1})
    write_bundle(tmp_path / "odd", noisy.bundle.manifest, files)
    with pytest.raises(BundleError, match="other logits than at export"):
        Replica(str(tmp_path / "odd"))


def test_ray_is_told_what_to_run(noisy: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: dict[str, Any] = {}

    class Bound:
        def __init__(self, made: type) -> None:
            told["class"] = made

        def bind(self, *words: object) -> str:
            told["words"] = words
            return "an application"

    def deployment(**options: object) -> type[Bound]:
        told.update(options)
        return Bound

    serve = ModuleType("ray.serve")
    vars(serve).update(
        deployment=deployment, start=lambda http_options: told.update(http_options),
        run=lambda app, route_prefix, blocking: told.update(app=app, route=route_prefix, blocking=blocking),
    )  # fmt: skip
    ray = ModuleType("ray")
    vars(ray).update(serve=serve)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.serve", serve)
    ray_app.serve_on_ray(noisy.bundle.folder, replicas=3, max_batch=8)
    assert told == {
        "class": Replica, "words": (str(noisy.bundle.folder.resolve()), 8, ""), "name": "tiny", "num_replicas": 3,
        "max_ongoing_requests": 64, "host": "127.0.0.1", "port": 8000, "app": "an application", "route": "/",
        "blocking": True,
    }  # fmt: skip
    with pytest.raises(InputError, match="1 replica"):
        application(noisy.bundle.folder, replicas=0)
    with pytest.raises(BundleError, match="expected the cloud half"):
        application(write_half(noisy.bundle, "edge", tmp_path / "edge").folder)


def test_without_ray_the_extra_is_named(noisy: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"splitveil\[ray\]"):
        application(noisy.bundle.folder)


@pytest.mark.slow
def test_ray_itself_answers(noisy: Made) -> None:
    pytest.importorskip(
        "ray.serve", reason="ray[serve] is not installed here; pip install 'splitveil[ray]'", exc_type=ImportError
    )
    from urllib.request import urlopen

    from ray import serve

    serve.start(http_options={"host": "127.0.0.1", "port": 18000})
    try:
        serve.run(application(noisy.bundle.folder), route_prefix="/")
        with urlopen("http://127.0.0.1:18000/v2/health/ready", timeout=20) as answer:
            assert json.loads(answer.read()) == {"ready": True}
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
