from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from splitveil.core.errors import BundleError, InputError
from splitveil.core.records import Manifest
from splitveil.lab.cut import halves
from splitveil.lab.data import Dataset
from splitveil.lab.data.base import Images
from splitveil.lab.defenses.base import Protected
from splitveil.lab.defenses.none import Undefended
from splitveil.lab.export import save
from splitveil.lab.export.quantizing import quantized, write_quantized
from splitveil.wire.bundle import CLOUD, EDGE, EDGE_WEIGHTS, GOLDEN, Bundle, codec, write_half
from splitveil.wire.codecs.uniform import Uniform


@pytest.fixture(scope="module")
def made(bundle: Bundle, data: Dataset) -> Bundle:
    return write_quantized(bundle, data, bundle.folder.with_name("int8"), n=32, seed=3)


def run(graph: bytes, **inputs: NDArray[Any]) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    out: NDArray[Any] = session.run(None, inputs)[0]
    return out


def untouched(graph: Any, seeds: set[str]) -> set[str]:
    """Everything that is computed from these tensors, and that none of it is quantised."""
    reached = set(seeds)
    for node in graph.node:
        if reached.intersection(node.input) or (node.op_type == "Round" and not seeds):
            reached.update(node.output)
            assert node.op_type not in ("QuantizeLinear", "DequantizeLinear")
    return reached


def test_products_are_of_integers_and_the_noise_stays_float(made: Bundle) -> None:
    graph = onnx.load_from_string(made.read(EDGE)).graph
    by_output = {output: node for node in graph.node for output in node.output}
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 3
    for node in convolutions:
        image, weight = (by_output[name] for name in node.input[:2])
        assert (image.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert constants[image.input[2]].dtype == np.uint8
        assert constants[weight.input[0]].dtype == np.int8
        assert constants[weight.input[1]].shape == (8,)
    assert "z" in untouched(graph, {"noise"})
    assert [(i.name, i.type.tensor_type.elem_type) for i in graph.input] == [
        ("x", TensorProto.FLOAT), ("noise", TensorProto.FLOAT)
    ]  # fmt: skip


def test_the_scale_of_the_input_is_that_of_training_images(made: Bundle, data: Dataset) -> None:
    graph = onnx.load_from_string(made.read(EDGE)).graph
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    # The net does not normalise, so that the first quantisation is of x itself.
    [first] = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "x"]
    assert float(constants[first.input[1]]) == pytest.approx(data.train.x.max() / 255 / 255, rel=0.05)


def test_codes_stay_near_those_of_the_float_edge(bundle: Bundle, made: Bundle, data: Dataset) -> None:
    x = data.train.x.astype(np.float32) / 255
    noise = np.random.default_rng(0).standard_normal((len(x), *bundle.manifest.features.shape[1:])).astype(np.float32)
    old, new = (run(b.read(EDGE), x=x, noise=noise).astype(float) for b in (bundle, made))
    assert 10 * np.log10(old.var() / np.square(old - new).mean()) > 25
    assert (old != new).any()


def test_packed_codes_are_packed_exactly(data: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.from_numpy(data.train.x).float() / 255
    edge = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU())
    halved = halves(edge, nn.Sequential(nn.Flatten(), nn.Linear(5 * 64, 4)), x)
    with torch.no_grad():
        protected = Protected(halved, Undefended(), Uniform(3).calibrate(halved.edge(x))).eval()
    floats = save(
        protected, tmp_path / "b", name="b", model_spec="by hand", image_shape=data.shape, classes=data.classes
    )
    integers = write_quantized(floats, data, tmp_path / "q", n=48)
    graph = onnx.load_from_string(integers.read(EDGE)).graph
    assert "z" in untouched(graph, set())
    packed = [run(b.read(EDGE), x=x.numpy()) for b in (floats, integers)]
    old, new = (np.asarray(codec(floats.manifest).unpack(p, (5, 8, 8))) for p in packed)
    assert packed[0].shape == (48, 120)
    assert np.abs(old - new).max() <= 1
    assert (old != new).mean() < 0.05


def test_the_figures_are_those_of_the_two_files(bundle: Bundle, made: Bundle, data: Dataset) -> None:
    found = made.manifest.quantization
    assert found is not None
    x = data.test.x.astype(np.float32) / 255
    # Drawn as the measurement draws it, a batch at a time.
    noise = np.concatenate(_noise((3, len(x)), len(x), bundle.manifest.features.shape[1:]))
    answers = [run(bundle.read(CLOUD), z=run(b.read(EDGE), x=x, noise=noise)).argmax(1) for b in (bundle, made)]
    assert found.tested_on == len(x)
    assert found.agreement == pytest.approx((answers[0] == answers[1]).mean())
    assert found.accuracy_before == pytest.approx((answers[0] == data.test.y).mean())
    assert found.accuracy_after == made.manifest.task_accuracy == pytest.approx((answers[1] == data.test.y).mean())
    assert (found.bytes_before, found.bytes_after) == tuple((b.folder / EDGE).stat().st_size for b in (bundle, made))
    assert found.latency_before.sha256 == bundle.manifest.files[EDGE]
    assert found.latency_after.sha256 == made.manifest.files[EDGE]
    for timing in (found.latency_before, found.latency_after):
        assert 0 < timing.median <= timing.p95 < 10
        assert timing.runs == 200
    assert (found.calibrated_on, found.seed, found.source) == (32, 3, bundle.manifest.contract)
    assert Manifest.from_json(made.manifest.to_json()) == made.manifest


def _noise(seed: tuple[int, int], n: int, shape: tuple[int, ...]) -> list[NDArray[np.float32]]:
    draws = np.random.default_rng(seed)
    return [draws.standard_normal((min(32, n - start), *shape), dtype=np.float32) for start in range(0, n, 32)]


def test_another_edge_has_another_contract_and_no_card(bundle: Bundle, made: Bundle) -> None:
    assert bundle.card is not None
    assert made.card is None
    assert made.manifest.contract != bundle.manifest.contract
    assert (made.read(CLOUD), made.read(GOLDEN)) == (bundle.read(CLOUD), bundle.read(GOLDEN))
    assert EDGE_WEIGHTS not in made.manifest.files
    with pytest.raises(BundleError, match=f"cannot be trained; use the bundle {bundle.manifest.contract[:12]}"):
        made.read(EDGE_WEIGHTS)
    assert write_half(made, "edge", made.folder.with_name("device")).manifest.contract == made.manifest.contract


def test_the_same_seed_gives_the_same_graph(bundle: Bundle, made: Bundle, data: Dataset, tmp_path: Path) -> None:
    again = write_quantized(bundle, data, tmp_path / "again", n=32, seed=3)
    assert again.manifest.contract == made.manifest.contract
    assert not any(text in again.read(EDGE) for text in (b"/tmp", b"site-packages"))


def test_what_cannot_be_quantised_is_told(bundle: Bundle, made: Bundle, data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="quantised already"):
        write_quantized(made, data, tmp_path / "q")
    with pytest.raises(BundleError, match="expected the cloud half"):
        write_quantized(write_half(bundle, "edge", tmp_path / "edge"), data, tmp_path / "q")
    small = Images(data.train.x[:, :, :8, :8], data.train.y)
    with pytest.raises(InputError, match=r"takes \(3, 16, 16\) images"):
        write_quantized(bundle, Dataset("small", small, small, data.classes), tmp_path / "q")
    with pytest.raises(InputError, match="knows 4 classes, got 5"):
        write_quantized(bundle, Dataset("five", data.train, data.test, (*data.classes, "e")), tmp_path / "q")
    with pytest.raises(InputError, match="1 calibration image"):
        write_quantized(bundle, data, tmp_path / "q", n=0)
    assert [p.name for p in tmp_path.iterdir()] == ["edge"]


def test_a_graph_without_products_is_refused() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["z"])], "g", [value], [out])
    with pytest.raises(InputError, match="multiplies nothing"):
        quantized(helper.make_model(graph).SerializeToString(), [])
