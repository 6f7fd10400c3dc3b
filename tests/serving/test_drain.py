"""SIGTERM, SIGHUP and readiness, with both protocols in one process."""

import http.client
import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from .conftest import Made, ask_with_triton, spawned
from .test_hot_swap import put
from .test_server import cloud, features, wait_until_refused
from .test_web import ask

BOTH = """
import sys
from pathlib import Path
from splitveil.wire.bundle import Bundle
from splitveil.wire.engine import LoadedHalf
from splitveil.server.journal import log_as_json
from splitveil.server.lifecycle import run_until_told
from splitveil.server.server import Server
from splitveil.wire.contract import RequestRules

run, check = LoadedHalf.run, RequestRules.check

def gated(self, inputs):
    sys.stdin.readline()
    return run(self, inputs)

def told(self, *given):
    check(self, *given)
    print("got", flush=True)

def ready(server):
    LoadedHalf.run, RequestRules.check = gated, told
    print(f"{server.http_port}:{server.port}", flush=True)

log_as_json(sys.stdout)
run_until_told(Server(Bundle.load(Path(sys.argv[1])), port=int(sys.argv[2]), http_port=0), ready)
print("drained", flush=True)
"""


def test_sigterm_answers_what_is_in_flight_on_both_protocols(plain: Made, images: NDArray[np.float32]) -> None:
    z = features(plain, images[:6])
    with spawned(plain.bundle, program=BOTH) as server, ThreadPoolExecutor(8) as pool:
        http_port = int(server.line.partition(":")[0])
        idle = http.client.HTTPConnection("127.0.0.1", http_port, timeout=20)
        idle.request("GET", "/v2/health/ready")
        assert idle.getresponse().read() == b'{"ready": true}'
        asked = [pool.submit(ask_with_triton, server.port, z[i : i + 1]) for i in range(3)]
        asked += [pool.submit(http_row, http_port, z[i : i + 1]) for i in range(3, 6)]
        assert [server.read() for _ in asked] == ["got"] * 6
        server.process.send_signal(signal.SIGTERM)
        assert json.loads(server.read())["message"] == "draining"
        for port in (server.port, http_port):
            wait_until_refused(port)
        idle.close()
        server.write("\n" * 6)
        logits = np.concatenate([a.result(20) for a in asked])
        assert server.read() == "drained"
        assert server.process.wait(20) == 0
    np.testing.assert_allclose(logits, cloud(plain, z), rtol=1e-5, atol=1e-5)


def http_row(port: int, z: NDArray[np.float32]) -> NDArray[np.float32]:
    got: NDArray[np.float32] = ask(port, z, True).as_numpy("logits")
    return got


def test_a_watched_folder_needs_no_signal(plain: Made, other: Made, tmp_path: Path) -> None:
    served = put(plain.bundle, tmp_path / "served")
    program = BOTH.replace("sys.stdin.readline()", "pass").replace(", ready)", ", ready, watch=0.02)")
    with spawned(served, program=program) as server:
        put(other.bundle, tmp_path / "served")
        messages = iter(
            lambda: json.loads(server.read())["message"], f"serving contract {other.bundle.manifest.contract} now"
        )
        # A look may fall into the instant between the old folder and the new one.
        assert all("not replaced" in message for message in messages)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0


def test_sighup_takes_over_what_lies_in_the_folder(
    plain: Made, other: Made, images: NDArray[np.float32], tmp_path: Path
) -> None:
    z = features(plain, images[:1])
    served = put(plain.bundle, tmp_path / "served")
    with spawned(served, program=BOTH.replace("sys.stdin.readline()", "pass")) as server:
        http_port = int(server.line.partition(":")[0])
        np.testing.assert_allclose(ask_with_triton(server.port, z), cloud(plain, z), rtol=1e-5, atol=1e-5)
        assert server.read() == "got"
        (served.folder / "cloud.onnx").write_bytes(b"half a file")
        server.process.send_signal(signal.SIGHUP)
        assert "cloud.onnx is altered" in json.loads(server.read())["message"]
        np.testing.assert_allclose(http_row(http_port, z), cloud(plain, z), rtol=1e-5, atol=1e-5)
        assert server.read() == "got"
        put(other.bundle, tmp_path / "served")
        server.process.send_signal(signal.SIGHUP)
        assert json.loads(server.read())["message"] == f"serving contract {other.bundle.manifest.contract} now"
        np.testing.assert_allclose(http_row(http_port, z), cloud(other, z), rtol=1e-5, atol=1e-5)
        assert server.read() == "got"
        with pytest.raises(InferenceServerException, match="got another"):
            ask_with_triton(server.port, z, {"contract": "0" * 32})
        refused = json.loads(server.read())
        assert (refused["protocol"], refused["rule"], refused["level"]) == ("grpc", "contract", "info")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
