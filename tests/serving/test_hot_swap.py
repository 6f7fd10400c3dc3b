"""Another bundle in the same folder, taken over while requests come in."""

import asyncio
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from splitveil.core.errors import BundleError, ContractError
from splitveil.device.edge import Edge
from splitveil.server.deployment import Deployments
from splitveil.server.policy import PrivacyPolicy
from splitveil.server.server import Server
from splitveil.wire.bundle import GOLDEN, Bundle, make_keys, sign, write_bundle

from .conftest import Made, started
from .test_server import cloud, features


def put(bundle: Bundle, folder: Path) -> Bundle:
    files: dict[str, bytes | Path] = {n: bundle.folder / n for n in bundle.manifest.files}
    return write_bundle(folder, bundle.manifest, files)


@contextmanager
def swapping(
    made: Made, folder: Path, signed_by: Path | None = None, key: Path | None = None
) -> Iterator[tuple[Server, Any]]:
    """A server of a copy in `folder`, signed if there is a key, and what reloads it."""
    first = put(made.bundle, folder)
    if key is not None:
        sign(first, key)
    loops: list[asyncio.AbstractEventLoop] = []

    def make_server() -> Server:
        loops.append(asyncio.get_running_loop())
        return Server(first, port=0, http_port=0, signed_by=signed_by)

    with started(make_server) as server:
        yield server, lambda: asyncio.run_coroutine_threadsafe(server.reload(), loops[0]).result(60)


def test_no_request_is_lost_and_each_contract_gets_its_own_model(
    plain: Made, other: Made, images: NDArray[np.float32], tmp_path: Path
) -> None:
    old, new = plain.bundle.manifest.contract, other.bundle.manifest.contract
    z = features(plain, images[:8])
    expected = {old: cloud(plain, z), new: cloud(other, z)}
    assert np.abs(expected[old] - expected[new]).max() > 0.01
    wrong: list[Exception] = []
    answered = {"grpc": 0, "http": 0}
    stop = threading.Event()

    def load(protocol: str, port: int | None, row: int) -> None:
        library: Any = triton if protocol == "grpc" else triton_http
        with library.InferenceServerClient(f"127.0.0.1:{port}") as client:
            tensor = library.InferInput("z", [1, *z.shape[1:]], "FP32")
            tensor.set_data_from_numpy(z[row : row + 1])
            while not stop.is_set():
                try:
                    got = client.infer("tiny", [tensor], parameters={"contract": old}).as_numpy("logits")
                    np.testing.assert_allclose(got, expected[old][row : row + 1], rtol=1e-5, atol=1e-5)
                    answered[protocol] += 1
                except Exception as error:
                    wrong.append(error)
                    return

    with swapping(plain, tmp_path / "served") as (server, reload):
        ports = {"grpc": server.port, "http": server.http_port}
        threads = [threading.Thread(target=load, args=(p, port, i)) for i in range(3) for p, port in ports.items()]
        for thread in threads:
            thread.start()
        try:
            put(other.bundle, tmp_path / "served")
            before = dict(answered)
            assert reload()
            for _ in range(1000):
                if wrong or all(answered[p] > before[p] + 30 for p in ports):
                    break
                time.sleep(0.01)
        finally:
            stop.set()
            for thread in threads:
                thread.join(20)
        assert wrong == []
        assert all(answered[p] > before[p] + 30 for p in ports)
        with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert client.get_model_config("tiny").config.parameters["contract"].string_value == new
            tensor = triton.InferInput("z", list(z.shape), "FP32")
            tensor.set_data_from_numpy(z)
            for parameters, contract in (({"contract": old}, old), ({"contract": new}, new), (None, new)):
                got = client.infer("tiny", [tensor], parameters=parameters).as_numpy("logits")
                np.testing.assert_allclose(got, expected[contract], rtol=1e-5, atol=1e-5)
        third = other.bundle.manifest.model_copy(update={"codec_state": {"version": 3}})
        put(Bundle(other.bundle.folder, third), tmp_path / "served")
        assert reload()
        with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            tensor = triton.InferInput("z", list(z.shape), "FP32")
            tensor.set_data_from_numpy(z)
            with pytest.raises(InferenceServerException, match="got another"):
                client.infer("tiny", [tensor], parameters={"contract": old})
            got = client.infer("tiny", [tensor], parameters={"contract": new}).as_numpy("logits")
            np.testing.assert_allclose(got, expected[new], rtol=1e-5, atol=1e-5)


def test_what_must_not_be_served_changes_nothing_and_the_log_says_why(
    plain: Made, other: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "splitveil")
    folder = tmp_path / "served"
    with swapping(plain, folder) as (server, reload):
        first: Deployments = server.deployments
        current = first.current
        assert not reload()
        assert "it is the one that is served" in caplog.text
        golden = bytearray(other.bundle.read(GOLDEN))
        golden[-4:] = np.float32(99).tobytes()
        files: dict[str, bytes | Path] = {n: other.bundle.folder / n for n in other.bundle.manifest.files}
        write_bundle(folder, other.bundle.manifest, {**files, GOLDEN: bytes(golden)})
        assert not reload()
        assert "golden features with other logits" in caplog.text
        put(other.bundle, folder)
        (folder / GOLDEN).write_bytes(b"half")
        assert not reload()
        assert "golden.safetensors is altered" in caplog.text
        shutil.rmtree(folder)
        assert not reload()
        assert "is not a bundle" in caplog.text
        renamed = other.bundle.manifest.model_copy(update={"name": "else"})
        write_bundle(folder, renamed, files)
        assert not reload()
        assert "expected a bundle named 'tiny'" in caplog.text
        assert server.deployments.current is current
        assert server.front.ready
        put(other.bundle, folder)
        assert reload()


def test_later_bundles_must_be_signed_by_the_same_key(
    plain: Made, other: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    private, public = make_keys(tmp_path / "ours")
    stranger, _ = make_keys(tmp_path / "theirs")
    folder = tmp_path / "served"
    with pytest.raises(BundleError, match="is not signed"), swapping(plain, folder, signed_by=public):
        pass
    with swapping(plain, folder, signed_by=public, key=private) as (_, reload):
        put(other.bundle, folder)
        assert not reload()
        assert "is not signed" in caplog.text
        sign(Bundle.load(folder), stranger)
        assert not reload()
        assert "is signed by key" in caplog.text
        sign(Bundle.load(folder), private)
        assert reload()


def test_the_policy_holds_for_later_bundles_too(
    plain: Made, other: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with swapping(plain, tmp_path / "served") as (server, reload):
        server.deployments._terms = server.deployments._terms.__class__(64, 64, policy=PrivacyPolicy(max={"ssim": 0.5}))
        put(other.bundle, tmp_path / "served")
        assert not reload()
        assert "no leakage card" in caplog.text


def test_a_device_that_comes_after_the_change_with_the_bundle_before_is_answered(
    plain: Made, other: Made, images: NDArray[np.float32], tmp_path: Path
) -> None:
    with swapping(plain, tmp_path / "served") as (server, reload):
        put(other.bundle, tmp_path / "served")
        with pytest.raises(ContractError, match="give both the same bundle"):
            Edge(other.bundle, f"127.0.0.1:{server.port}")
        assert reload()
        for made in (plain, other):
            with Edge(made.bundle, f"127.0.0.1:{server.port}") as edge:
                expected = cloud(made, features(made, images[:3]))
                np.testing.assert_allclose(edge.ask(images[:3]), expected, rtol=1e-4, atol=1e-4)
