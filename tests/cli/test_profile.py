"""``splitveil profile`` as a device runs it: without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

from splitveil.cli.profile import run
from splitveil.core.errors import InputError
from splitveil.device.profiling import find_device, graph_macs
from splitveil.lab.cut import halves
from splitveil.lab.defenses.base import Protected
from splitveil.lab.defenses.noise import GaussianNoise
from splitveil.lab.export import save
from splitveil.wire.bundle import Bundle, write_half
from splitveil.wire.codecs.raw import Raw
from tests.cli.conftest import Done
from tests.device_only import device_only

SHAPE = (3, 16, 16)
COMMAND = """
from splitveil.cli import main
main()
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    x = torch.rand(4, *SHAPE)
    edge = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    split = halves(edge, nn.Sequential(nn.Conv2d(8, 4, 3, 2, 1), nn.Flatten(), nn.Linear(4 * 64, 3)), x)
    defense = GaussianNoise(sigma=0.1)
    with torch.no_grad():
        defense.calibrate(split.edge(x))
    folder = tmp_path_factory.mktemp("b") / "pets"
    return save(
        Protected(split, defense, Raw()), folder, name="pets", model_spec="by hand", image_shape=SHAPE,
        classes=["cat", "dog", "fox"],
    )  # fmt: skip


def profile(*words: str | Path) -> Done:
    command = [sys.executable, "-c", device_only() + COMMAND, "profile", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def test_a_bundle_without_torch(bundle: Bundle, tmp_path: Path) -> None:
    done = profile(
        bundle.folder, "--json", "--nodes", "--runs", "5", "--name", "kitchen", "--out", tmp_path / "device.json"
    )
    assert done.code == 0, done.err
    told = done.json
    found = find_device(tmp_path / "device.json")
    assert told["device"] == json.loads(found.to_json())
    assert found.name == "kitchen"
    assert found.macs_per_second > 1e6
    edge, cloud = found.timings
    assert (edge.graph, cloud.graph) == ("pets/edge.onnx", "pets/cloud.onnx")
    assert (edge.sha256, cloud.sha256) == tuple(bundle.manifest.files[name] for name in ("edge.onnx", "cloud.onnx"))
    assert edge.macs == 8 * 256 * 27 == bundle.manifest.cut.edge_macs
    assert cloud.macs == 4 * 64 * 72 + 4 * 64 * 3 == bundle.manifest.cut.cloud_macs
    for timing in (edge, cloud):
        assert 0 < timing.median <= timing.p95
        assert timing.runs == 5
    # Less than torch alone takes, and more than Python does.
    assert edge.peak_rss_bytes is not None
    assert 20e6 < edge.peak_rss_bytes < 150e6
    for graph in ("pets/edge.onnx", "pets/cloud.onnx"):
        assert sum(node["share"] for node in told["nodes"][graph]) == pytest.approx(1)
        assert "Conv" in {node["op"] for node in told["nodes"][graph]}
    assert "timing pets/edge.onnx: " in done.err


def test_half_a_bundle(bundle: Bundle, tmp_path: Path) -> None:
    write_half(bundle, "edge", tmp_path / "device")
    done = profile(tmp_path / "device", "--json", "--runs", "1")
    assert done.code == 0, done.err
    assert [timing["graph"] for timing in done.json["device"]["timings"]] == ["pets/edge.onnx"]
    assert done.json["nodes"] == {}


def test_one_graph_as_a_table(bundle: Bundle) -> None:
    done = profile(bundle.folder / "cloud.onnx", "--nodes", "--runs", "5", "--batch", "2")
    assert done.code == 0, done.err
    macs = f"{graph_macs(bundle.folder / 'cloud.onnx') / 1e3:.1f} k"
    for words in ("device: ", "cloud.onnx", macs, "median ms", "reference graph: ", "memory: ", "storage: ", "%"):
        assert words in done.out


def test_it_says_what_is_wrong(bundle: Bundle, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(run)
    (tmp_path / "text.onnx").write_text("no graph")
    for words, message in (
        ([tmp_path / "none"], "neither a bundle's folder nor a file"),
        ([tmp_path / "text.onnx"], "cannot load"),
        ([tmp_path], "is not a bundle"),
        ([bundle.folder, "--name", " "], "expected a name for the device"),
    ):
        with pytest.raises(InputError, match=message):
            CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    done = profile(tmp_path / "none")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
