import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray
from safetensors.numpy import load
from tritonclient.grpc import model_config_pb2

from splitveil.core.errors import BundleError, InputError
from splitveil.lab.export.triton import DATATYPES, write_repository
from splitveil.wire.bundle import CLOUD, GOLDEN, Bundle, write_half


def parsed(model: Path) -> Any:
    """By the schema that NVIDIA ships."""
    return text_format.Parse((model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


@pytest.mark.parametrize("backend", ["onnxruntime", "python"])
def test_the_configuration_says_what_the_bundle_says(bundle: Bundle, tmp_path: Path, backend: Any) -> None:
    model = write_repository(bundle, tmp_path, backend=backend, max_batch=16)
    assert model == tmp_path / "Tiny_net"
    config, m = parsed(model), bundle.manifest
    assert (config.name, config.max_batch_size, config.backend) == (m.name, 16, backend)
    assert config.platform == ("onnxruntime_onnx" if backend == "onnxruntime" else "")
    assert [(i.name, i.data_type, tuple(i.dims)) for i in config.input] == [
        ("z", model_config_pb2.TYPE_UINT8, m.features.shape[1:])
    ]
    assert [(o.name, o.data_type, tuple(o.dims)) for o in config.output] == [
        ("logits", model_config_pb2.TYPE_FP32, (4,))
    ]
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert config.parameters["contract"].string_value == m.contract
    assert (model / "1" / "model.onnx").read_bytes() == bundle.read(CLOUD)
    assert (model / "1" / "model.py").exists() is (backend == "python")
    assert {path.name for path in model.rglob("*")} <= {"config.pbtxt", "1", "model.onnx", "model.py"}


def test_datatypes_are_the_protocols() -> None:
    assert {getattr(model_config_pb2, name) for name in DATATYPES.values()} == {
        model_config_pb2.TYPE_FP32, model_config_pb2.TYPE_FP16, model_config_pb2.TYPE_UINT8
    }  # fmt: skip


class Tensor:
    """As Triton's python backend has it."""

    def __init__(self, name: str, values: NDArray[Any]) -> None:
        self.name, self.values = name, values

    def as_numpy(self) -> NDArray[Any]:
        return self.values


class Response:
    def __init__(self, output_tensors: list[Tensor]) -> None:
        self.outputs = output_tensors


def test_the_python_model_answers_each_request_of_a_batch(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_repository(bundle, tmp_path, backend="python")
    backend = ModuleType("triton_python_backend_utils")
    vars(backend).update(
        Tensor=Tensor, InferenceResponse=Response,
        get_input_tensor_by_name=lambda request, name: next(t for t in request if t.name == name),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, backend.__name__, backend)
    space: dict[str, Any] = {}
    # As Triton does: the copied file, not the one in the package.
    exec(compile((model / "1" / "model.py").read_text(), "model.py", "exec"), space)
    running = space["TritonPythonModel"]()
    config = {"input": [{"name": "z"}], "output": [{"name": "logits"}]}
    running.initialize({"model_config": json.dumps(config), "model_repository": str(model), "model_version": "1"})
    golden = load(bundle.read(GOLDEN))
    z, logits = golden["z"], golden["logits"]
    answers = running.execute([[Tensor("z", z)], [Tensor("z", z[1:])], [Tensor("z", z[:1])]])
    for answer, expected in zip(answers, (logits, logits[1:], logits[:1]), strict=True):
        [output] = answer.outputs
        assert output.name == "logits"
        np.testing.assert_allclose(output.values, expected, rtol=1e-4, atol=1e-4)
        assert output.values.flags.c_contiguous


def test_a_cloud_half_is_enough_and_an_edge_half_is_not(bundle: Bundle, tmp_path: Path) -> None:
    write_repository(write_half(bundle, "cloud", tmp_path / "cloud"), tmp_path / "models")
    with pytest.raises(BundleError, match="expected the cloud half"):
        write_repository(write_half(bundle, "edge", tmp_path / "edge"), tmp_path / "models")


def test_a_model_is_replaced_whole_and_others_stay(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    model = write_repository(bundle, tmp_path, backend="python")
    before = (model / "config.pbtxt").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", _full)
        with pytest.raises(OSError, match="No space"):
            write_repository(bundle, tmp_path, max_batch=2)
    assert (model / "config.pbtxt").read_text() == before
    write_repository(bundle, tmp_path, max_batch=2)
    assert not (model / "1" / "model.py").exists()
    assert parsed(model).max_batch_size == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["Tiny_net", "other"]


def _full(self: Path, content: bytes) -> int:
    raise OSError(28, "No space left on device")


def test_what_triton_cannot_take_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    for name in ('a"b', "a/b", "..", ""):
        odd = Bundle(bundle.folder, bundle.manifest.model_copy(update={"name": name}))
        with pytest.raises(InputError, match="model's name"):
            write_repository(odd, tmp_path)
    (tmp_path / "Tiny_net").mkdir()
    (tmp_path / "Tiny_net" / "photo.png").write_bytes(b"mine")
    with pytest.raises(InputError, match="not a Triton model"):
        write_repository(bundle, tmp_path)
    with pytest.raises(InputError, match="batch of 1"):
        write_repository(bundle, tmp_path / "m", max_batch=0)
    double = bundle.manifest.features.model_copy(update={"datatype": "FP64"})
    odd = Bundle(bundle.folder, bundle.manifest.model_copy(update={"features": double}))
    with pytest.raises(BundleError, match="Triton takes"):
        write_repository(odd, tmp_path / "m")
    assert not (tmp_path / "m").exists()
