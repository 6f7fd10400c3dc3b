"""The edge half in other engines, each the real one; skipped where it is not installed."""

import importlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from splitveil.cli import app
from splitveil.core.errors import BundleError, InputError, MissingExtraError
from splitveil.core.records import DeviceGraph
from splitveil.lab.cut import split
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.export import engines, save
from splitveil.lab.export.engines import ENGINES, RECORD, Converted, difference, drawn, write_device_graph
from splitveil.lab.models.loader import load_model
from splitveil.lab.restoring import restore
from splitveil.wire.bundle import EDGE, Bundle
from splitveil.wire.codecs import CODECS

SHAPE = (1, 8, 8)
CLASSES = list("0123456789")


def small(folder: Path, codec: str, *, noisy: bool = True) -> Bundle:
    """A net of ours, so that it can be restored."""
    model = load_model("small", shape=SHAPE, classes=10, weights=None, seed=0).model
    x = torch.rand(16, *SHAPE, generator=torch.Generator().manual_seed(0))
    halved = split(model, "relu2", x[:2])
    defense = DEFENSES.build("noise:sigma=0.3" if noisy else "none")
    with torch.no_grad():
        h = halved.edge(x)
        defense.calibrate(h)
        protected = Protected(halved, defense, CODECS.build(codec).calibrate(defense(h))).eval()
    return save(protected, folder, name="small", model_spec="small", image_shape=SHAPE, classes=CLASSES)


def here(engine: str) -> None:
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"no {engine} here; pip install 'splitveil[{engine}]'")


@pytest.mark.parametrize("codec", ["raw", "half", "uniform:bits=8", "uniform:bits=4"])
@pytest.mark.parametrize("engine", list(ENGINES))
def test_it_sends_what_the_onnx_edge_sends(engine: str, codec: str, tmp_path: Path) -> None:
    here(engine)
    bundle = small(tmp_path / "b", codec)
    net = restore(bundle)
    record = write_device_graph(bundle, tmp_path / "device", engine, net)
    assert record == DeviceGraph.load(tmp_path / "device" / RECORD)
    assert record.contract == bundle.manifest.contract
    assert [i.name for i in record.inputs] == ["x", "noise"]
    assert set(record.files) | {RECORD} == {path.name for path in (tmp_path / "device").iterdir()}
    assert record.largest_difference <= (1 if codec.startswith("uniform") else 1e-3)
    # Again over its own folder, but over nobody else's.
    write_device_graph(bundle, tmp_path / "device", engine, net)
    with pytest.raises(InputError, match="holds something that this did not write"):
        write_device_graph(bundle, tmp_path / "b", engine, net)


def test_another_net_is_told_from_it(tmp_path: Path) -> None:
    here("openvino")
    bundle = small(tmp_path / "b", "raw")
    graph = onnx.load_from_string(bundle.read(EDGE))
    weights = max(graph.graph.initializer, key=lambda t: int(np.prod(t.dims)))
    weights.CopyFrom(onnx.numpy_helper.from_array(1.01 * onnx.numpy_helper.to_array(weights), weights.name))
    made = engines.openvino_graph(bundle, None)
    import openvino

    other = openvino.Core().compile_model(openvino.Core().read_model(graph.SerializeToString()), "CPU")
    with pytest.raises(BundleError, match="differs from ONNX Runtime by"):
        difference(bundle, made._replace(run=lambda inputs: np.asarray(other(inputs)[0])))


def test_other_codes_and_shapes_are_refused(tmp_path: Path) -> None:
    bundle = small(tmp_path / "b", "uniform:bits=8", noisy=False)
    size = bundle.manifest.features.shape[1:]
    for run, told in (
        (lambda inputs: np.full((len(inputs[0]), *size), 7, np.uint8), r"differs from ONNX Runtime in \d+ codes"),
        (lambda inputs: np.zeros((len(inputs[0]), 3), np.uint8), "it gives uint8"),
    ):
        with pytest.raises(BundleError, match=told):
            difference(bundle, Converted({}, run, None))


def test_noise_is_drawn_where_the_edge_takes_it(tmp_path: Path) -> None:
    noisy, plain = small(tmp_path / "a", "raw"), small(tmp_path / "b", "raw", noisy=False)
    assert [a.shape for a in drawn(noisy, 3)] == [(3, *SHAPE), (3, *noisy.manifest.cut.shape)]
    assert [a.shape for a in drawn(plain, 3)] == [(3, *SHAPE)]


def test_what_is_missing_or_fails_is_said_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = small(tmp_path / "b", "raw")

    def absent(bundle: Bundle, protected: Protected | None) -> Converted:
        importlib.import_module("nothing_of_this_name")
        return Converted({}, lambda inputs: inputs[0], None)

    def broken(bundle: Bundle, protected: Protected | None) -> Converted:
        raise RuntimeError("no kernel for it\nand much more")

    monkeypatch.setitem(ENGINES, "absent", (absent, ()))
    monkeypatch.setitem(ENGINES, "broken", (broken, ()))
    with pytest.raises(
        MissingExtraError, match=r"absent needs nothing_of_this_name; pip install 'splitveil\[lab,absent\]'"
    ):
        write_device_graph(bundle, tmp_path / "device", "absent")
    with pytest.raises(BundleError, match=r"broken cannot run this edge half \(no kernel for it\); ship edge.onnx"):
        write_device_graph(bundle, tmp_path / "device", "broken")
    with pytest.raises(InputError, match="expected an engine of openvino, executorch"):
        write_device_graph(bundle, tmp_path / "device", "tflite")
    assert not (tmp_path / "device").exists()


def test_the_command(tmp_path: Path) -> None:
    here("openvino")
    bundle = small(tmp_path / "b", "uniform:bits=8")
    words = ["bundle", "export", str(bundle.folder), str(tmp_path / "ov"), "--to", "openvino"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "edge.xml, edge.bin for any number of pictures a call" in done.output
    told = json.loads((tmp_path / "ov" / RECORD).read_text())
    assert told["engine"] == "openvino"
