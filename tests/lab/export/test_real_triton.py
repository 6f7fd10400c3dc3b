"""A real tritonserver over the repository that `bundle export --to triton` writes.

Set SPLITVEIL_TRITON to a virtual environment of this Python's version with nvidia-pytriton, numpy<2 and onnxruntime; it
stands apart from this one, for its NumPy is older.
"""

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as client
from safetensors.numpy import load

from splitveil.device.edge import Edge
from splitveil.lab.export.triton import write_repository
from splitveil.wire.bundle import GOLDEN, Bundle

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def triton(bundle: Bundle, tmp_path: Path) -> Iterator[str]:
    """Address of a server that has loaded the model."""
    apart = os.environ.get("SPLITVEIL_TRITON")
    if not apart:
        pytest.skip("no Triton here; set SPLITVEIL_TRITON to a virtual environment that holds nvidia-pytriton")
    packages = Path(apart) / "lib" / f"python{VERSION}" / "site-packages"
    # Run where it was installed it answers without bytes: copied, with the stub where it looks for it.
    workspace = tmp_path / "triton"
    shutil.copytree(packages / "pytriton" / "tritonserver", workspace)
    stub = workspace / "python_backend_stubs" / VERSION / "triton_python_backend_stub"
    shutil.copy(stub, workspace / "backends" / "python")
    repository = write_repository(bundle, tmp_path / "models", backend="python").parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        workspace / "bin" / "tritonserver", "--model-repository", repository, "--backend-directory",
        workspace / "backends", "--model-control-mode", "explicit", "--load-model", "*", "--allow-http", "false",
        "--allow-metrics", "false", "--grpc-address", "127.0.0.1", "--grpc-port", str(port),
    ]  # fmt: skip
    libraries = f"{sysconfig.get_config_var('LIBDIR')}:{packages / 'nvidia_pytriton.libs'}"
    log = (tmp_path / "log").open("wb")
    server = subprocess.Popen(
        list(map(str, command)), stdout=log, stderr=log,
        env={"LD_LIBRARY_PATH": libraries, "PYTHONPATH": str(packages), "PATH": f"{apart}/bin:/usr/bin:/bin"},
    )  # fmt: skip
    try:
        with client.InferenceServerClient(f"127.0.0.1:{port}") as asked:
            end = time.monotonic() + 60
            while not _ready(asked, bundle.manifest.name):
                assert server.poll() is None, (tmp_path / "log").read_text()[-3000:]
                assert time.monotonic() < end, (tmp_path / "log").read_text()[-3000:]
                time.sleep(0.2)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def _ready(asked: client.InferenceServerClient, name: str) -> bool:
    try:
        return bool(asked.is_model_ready(name, client_timeout=2))
    except client.InferenceServerException:
        return False


@pytest.mark.slow
def test_it_answers_golden_features_and_our_device(bundle: Bundle, triton: str) -> None:
    golden, m = load(bundle.read(GOLDEN)), bundle.manifest
    with client.InferenceServerClient(triton) as asked:
        config = asked.get_model_config(m.name).config
        assert config.parameters["contract"].string_value == m.contract
        tensor = client.InferInput("z", list(golden["z"].shape), m.features.datatype)
        tensor.set_data_from_numpy(golden["z"])
        logits = asked.infer(m.name, [tensor], client_timeout=20).as_numpy("logits")
        np.testing.assert_allclose(logits, golden["logits"], rtol=1e-4, atol=1e-4)
    with Edge(bundle, triton) as edge:
        answers = edge.ask(np.random.default_rng(0).random((5, *m.image_shape), dtype=np.float32))
        assert np.asarray(answers).shape[0] == 5
