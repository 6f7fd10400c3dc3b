import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from splitveil.bundle import write_bundle
from splitveil.errors import ContractError, DataError, LinkError
from splitveil.serving import Edge
from splitveil.serving.noise import standard_normal
from splitveil.serving.server import Server

from .conftest import SOURCE, Made, running, spawned

Array = NDArray[Any]

HASHING = """
import hashlib, sys
from pathlib import Path
from splitveil.bundle import Bundle
from splitveil.serving import serve
from splitveil.serving.contract import RequestRules
from splitveil.serving.engine import Half

read, run = RequestRules.read, Half.run

def told(self, request):
    print(hashlib.sha256(request.raw_input_contents[0]).hexdigest(), flush=True)
    return read(self, request)

def waits(self, inputs):
    sys.stdin.readline()
    return run(self, inputs)

def announce(line):
    RequestRules.read, Half.run = told, waits
    print(line, flush=True)

serve(Bundle.load(Path(sys.argv[1])), port=int(sys.argv[2]), max_batch=256, announce=announce)
"""

WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "torchvision"):
            raise AssertionError(f"{name} imported")

sys.meta_path.insert(0, NoTorch())
from splitveil.serving import Edge
assert "splitveil.serving.server" not in sys.modules and "splitveil.serving.service" not in sys.modules
from pathlib import Path
import numpy as np
from splitveil.bundle import Bundle
with Edge(Bundle.load(Path(sys.argv[1])), f"127.0.0.1:{sys.argv[2]}") as edge:
    print(*edge.ask(np.load(sys.argv[3])).shape)
"""


def local(made: Made, x: Array) -> Array:
    with torch.no_grad():
        out: Array = made.protected(torch.from_numpy(x)).numpy()
    return out


def on_the_wire(server: Server) -> list[Array]:
    """Raw contents of every request from now on."""
    seen: list[Array] = []
    rules, read = server.service.rules, server.service.rules.read

    def recording(request: Any) -> Array:
        z = np.frombuffer(request.raw_input_contents[0], rules.dtype).reshape(tuple(request.inputs[0].shape))
        seen.append(z)
        return read(request)

    rules.read = recording  # type: ignore[method-assign]
    return seen


def test_answers_are_those_of_the_local_model(plain: Made, images: Array) -> None:
    with running(plain.bundle) as server, Edge(plain.bundle, f"127.0.0.1:{server.port}") as edge:
        logits, expected = edge.ask(images), local(plain, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    assert (logits.argmax(1) == expected.argmax(1)).all()


def test_bytes_and_floats_give_the_same(plain: Made) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
    with running(plain.bundle) as server, Edge(plain.bundle, f"127.0.0.1:{server.port}") as edge:
        np.testing.assert_allclose(edge.ask(pixels), edge.ask(pixels / 255.0), rtol=1e-6, atol=1e-6)


def test_protected_features_cross_with_the_noise_that_was_drawn(
    noisy: Made, images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[NDArray[np.float32]] = []

    def draw(shape: tuple[int, ...]) -> NDArray[np.float32]:
        drawn.append(standard_normal(shape))
        return drawn[-1]

    monkeypatch.setattr("splitveil.serving.edge.standard_normal", draw)
    with running(noisy.bundle) as server, Edge(noisy.bundle, f"127.0.0.1:{server.port}") as edge:
        seen = on_the_wire(server)
        logits = edge.ask(images[:8])
    protected = noisy.protected
    with torch.no_grad():
        z = protected.split.edge(torch.from_numpy(images[:8]))
        codes = protected.codec.encode(protected.defense.apply_noise(z, torch.from_numpy(drawn[0]))).numpy()
        bare = protected.codec.encode(z).numpy()
        expected = protected.split.cloud(protected.codec.decode(torch.from_numpy(seen[0].astype(np.float32)))).numpy()
    steps = np.abs(codes - seen[0])
    assert len(seen) == len(drawn) == 1
    assert steps.max() <= 1
    assert (steps > 0).mean() < 1e-3
    assert (bare != seen[0]).mean() > 0.5
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_every_request_draws_fresh_noise(noisy: Made, plain: Made, images: Array) -> None:
    with running(noisy.bundle) as server, Edge(noisy.bundle, f"127.0.0.1:{server.port}") as edge:
        seen = on_the_wire(server)
        twice = np.repeat(images[:1], 2, axis=0)
        for x in (images[:1], images[:1], twice):
            edge.ask(x)
    rows = np.concatenate(seen)
    assert len({row.tobytes() for row in rows}) == 4
    with running(plain.bundle) as server, Edge(plain.bundle, f"127.0.0.1:{server.port}") as edge:
        np.testing.assert_array_equal(edge.features(images[:1]), edge.features(images[:1]))


def test_many_images_go_in_requests_that_the_server_takes(plain: Made, images: Array) -> None:
    with running(plain.bundle, max_batch=4) as server, Edge(plain.bundle, f"127.0.0.1:{server.port}") as edge:
        seen = on_the_wire(server)
        np.testing.assert_allclose(edge.ask(images[:10]), local(plain, images[:10]), rtol=1e-5, atol=1e-5)
    assert [len(z) for z in seen] == [4, 4, 2]


def test_a_killed_server_comes_back_and_sees_the_same_bytes(noisy: Made, images: Array) -> None:
    """512 KiB, twice what gRPC retries unless told to."""
    x = np.concatenate([images] * 4)
    with (
        spawned(noisy.bundle, program=HASHING) as server,
        Edge(noisy.bundle, f"127.0.0.1:{server.port}") as edge,
        ThreadPoolExecutor(1) as pool,
    ):
        assert edge.bytes_per_image * len(x) == 2**19
        asked = pool.submit(edge.ask, x)
        first = server.read()
        server.end()
        with spawned(noisy.bundle, server.port, HASHING) as again:
            assert again.read() == first
            again.write("\n")
            assert asked.result(30).shape == (len(x), 5)


def test_nothing_there_is_a_link_error(plain: Made) -> None:
    with running(plain.bundle) as server:
        port = server.port
    with pytest.raises(LinkError, match=f"no answer from 127.0.0.1:{port}"):
        Edge(plain.bundle, f"127.0.0.1:{port}", timeout=1.0)


def test_a_frozen_server_is_a_link_error(plain: Made, images: Array) -> None:
    with (
        spawned(plain.bundle, program=HASHING) as server,
        Edge(plain.bundle, f"127.0.0.1:{server.port}", timeout=0.5) as edge,
        pytest.raises(LinkError, match="DEADLINE"),
    ):
        edge.ask(images[:1])


def test_another_bundle_is_a_contract_error(plain: Made, noisy: Made, images: Array, tmp_path: Path) -> None:
    """Other shapes are seen at once; all else by the contract, at connect and in every request."""
    files = {name: plain.bundle.folder / name for name in plain.bundle.manifest.files}
    other = write_bundle(tmp_path / "other", plain.bundle.manifest.model_copy(update={"defense": "noise"}), files)
    with running(plain.bundle) as server:
        target = f"127.0.0.1:{server.port}"
        with pytest.raises(ContractError, match="describes"):
            Edge(noisy.bundle, target)
        with pytest.raises(ContractError, match="give both the same bundle"):
            Edge(other, target)
        with Edge(plain.bundle, target) as edge:
            edge.manifest = other.manifest
            with pytest.raises(ContractError, match="refuses: expected contract"):
                edge.ask(images[:1])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 3, 8, 8), np.float32), "expected images"),
        (np.zeros((3, 16, 16), np.float32), "expected images"),
        (np.zeros((0, 3, 16, 16), np.float32), "expected images"),
        (np.zeros((1, 3, 16, 16), np.int64), "uint8 or float"),
        (np.full((1, 3, 16, 16), 255.0), "divide"),
        (np.full((1, 3, 16, 16), np.nan), "divide"),
    ],
)
def test_wrong_images_are_refused_before_anything_is_sent(plain: Made, x: Array, message: str) -> None:
    with running(plain.bundle) as server, Edge(plain.bundle, f"127.0.0.1:{server.port}") as edge:
        seen = on_the_wire(server)
        with pytest.raises(DataError, match=message):
            edge.ask(x)
        assert seen == []


def test_a_device_needs_no_torch_and_no_server_parts(noisy: Made, images: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images[:2])
    with running(noisy.bundle) as server:
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH, noisy.bundle.folder, str(server.port), tmp_path / "x.npy"],
            env={"PYTHONPATH": SOURCE, "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "5"]
