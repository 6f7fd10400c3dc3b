import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from splitveil.core.errors import ContractError, DataError, LinkError
from splitveil.device import Edge
from splitveil.wire.bundle import write_bundle
from tests.device_only import device_only

from .conftest import SOURCE, Made, running
from .wiretap import Wiretap

Array = NDArray[Any]

IMPORTED = """
import time
wall, spent = time.perf_counter(), time.process_time()
from splitveil.device.edge import Edge
wall, spent = time.perf_counter() - wall, time.process_time() - spent
assert "splitveil.server.server" not in sys.modules and "splitveil.server.service" not in sys.modules
print(f"{wall:.2f} {spent:.2f}")
"""
QUERY = """
sys.argv[0] = "splitveil"
from splitveil.cli import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""


def local(made: Made, x: Array) -> Array:
    with torch.no_grad():
        out: Array = made.protected(torch.from_numpy(x)).numpy()
    return out


def test_answers_are_those_of_the_local_model(plain: Made, images: Array) -> None:
    with running(plain.bundle) as server, Edge(plain.bundle, f"127.0.0.1:{server.port}") as edge:
        logits, expected = edge.ask(images), local(plain, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    assert (logits.argmax(1) == expected.argmax(1)).all()


def test_bytes_and_floats_give_the_same(plain: Made) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
    with running(plain.bundle) as server, Edge(plain.bundle, f"127.0.0.1:{server.port}") as edge:
        np.testing.assert_allclose(edge.ask(pixels), edge.ask(pixels / 255.0), rtol=1e-6, atol=1e-6)


def test_many_images_go_in_requests_that_the_server_takes(plain: Made, images: Array) -> None:
    with (
        running(plain.bundle, max_batch=4) as server,
        Wiretap(server.port) as tap,
        Edge(plain.bundle, tap.target) as edge,
    ):
        np.testing.assert_allclose(edge.ask(images[:10]), local(plain, images[:10]), rtol=1e-5, atol=1e-5)
        assert edge.max_batch == 4
    assert [r.inputs[0].shape[0] for r in tap.requests()] == [4, 4, 2]


def test_nothing_there_is_a_link_error(plain: Made) -> None:
    with running(plain.bundle) as server:
        port = server.port
    with pytest.raises(LinkError, match=f"no answer from 127.0.0.1:{port}"):
        Edge(plain.bundle, f"127.0.0.1:{port}", timeout=1.0)


def test_a_frozen_server_is_a_link_error(plain: Made, images: Array) -> None:
    with (
        running(plain.bundle) as server,
        Wiretap(server.port) as tap,
        Edge(plain.bundle, tap.target, timeout=0.5) as edge,
    ):
        tap.freeze()
        with pytest.raises(LinkError, match="DEADLINE"):
            edge.ask(images[:1])


def test_another_bundle_is_a_contract_error(plain: Made, noisy: Made, tmp_path: Path) -> None:
    """Other shapes are seen at once, all else by the contract."""
    files = {name: plain.bundle.folder / name for name in plain.bundle.manifest.files}
    other = write_bundle(tmp_path / "other", plain.bundle.manifest.model_copy(update={"defense": "noise"}), files)
    with running(plain.bundle) as server:
        target = f"127.0.0.1:{server.port}"
        with pytest.raises(ContractError, match="describes"):
            Edge(noisy.bundle, target)
        with pytest.raises(ContractError, match="give both the same bundle"):
            Edge(other, target)


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
    with (
        running(plain.bundle) as server,
        Wiretap(server.port) as tap,
        Edge(plain.bundle, tap.target) as edge,
        pytest.raises(DataError, match=message),
    ):
        edge.ask(x)
    assert tap.requests() == []


def test_a_device_that_has_only_what_a_device_installs(noisy: Made, images: Array, tmp_path: Path) -> None:
    """Nothing of what trains, attacks or serves can be imported: the client's import is quick, and `query` answers."""

    def device(code: str, *words: str | Path) -> str:
        done = subprocess.run(
            [sys.executable, "-c", device_only() + code, *words],
            env={"PYTHONPATH": SOURCE, "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    seconds, spent = device(IMPORTED).split()
    print(f"importing the edge took {seconds} s, {spent} s of it computing")
    assert float(spent) < 0.7
    np.save(tmp_path / "x.npy", images[0])
    with running(noisy.bundle) as server:
        found = device(
            QUERY, "query", noisy.bundle.folder, "--input", tmp_path / "x.npy", "--to", f"127.0.0.1:{server.port}",
            "--json",
        )  # fmt: skip
    (answer,) = json.loads(found)["answers"]
    assert answer["class"] in noisy.bundle.manifest.classes
    assert not answer["local"]
