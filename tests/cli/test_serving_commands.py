"""``bundle``, ``serve`` and ``query`` as a user types them."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import splitveil
from splitveil.cli.bundle import app as bundle_app
from splitveil.cli.console import out
from splitveil.cli.query import run as query
from splitveil.cli.serve import run as serve
from splitveil.core.errors import DataError, InputError
from splitveil.core.records import Accuracy
from splitveil.lab.cut import halves
from splitveil.lab.defenses.base import Protected
from splitveil.lab.defenses.noise import GaussianNoise
from splitveil.lab.export import save
from splitveil.wire.bundle import EDGE, Bundle
from splitveil.wire.codecs.uniform import Uniform

SHAPE = (3, 16, 12)
CLASSES = ["cat", "dog", "fox"]
COMMANDS = """
import sys, typer
from splitveil.cli import bundle, query, serve
heavy = {"torch", "numpy", "grpc", "onnxruntime", "pydantic", "tritonclient"} & set(sys.modules)
assert not heavy, heavy
app = typer.Typer()
app.add_typer(bundle.app, name="bundle")
app.command("serve")(serve.run)
app.command("query")(query.run)
app()
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    x = torch.rand(8, *SHAPE)
    edge = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())
    split = halves(edge, nn.Sequential(nn.Flatten(), nn.Linear(4 * 8 * 6, 3)), x)
    defense = GaussianNoise(sigma=0.1)
    with torch.no_grad():
        defense.calibrate(split.edge(x))
        protected = Protected(split, defense, Uniform(8).calibrate(defense(split.edge(x))))
    return save(
        protected, tmp_path_factory.mktemp("b") / "pets", name="pets", model_spec="by hand", image_shape=SHAPE,
        classes=CLASSES, task_accuracy=0.875,
    )  # fmt: skip


@pytest.fixture(scope="module")
def served(bundle: Bundle) -> Iterator[str]:
    """Address of ``splitveil serve``, stopped by SIGTERM in the end."""
    server = subprocess.Popen(
        command("serve", str(bundle.folder), "--port", "0"), stdout=subprocess.PIPE, text=True, env=environment()
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("serving pets (custom, noise:sigma=0.1,clip=1.0, uniform:bits=8) on 127.0.0.1:")
        yield line.split()[-1]
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.communicate(timeout=20)


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", COMMANDS.strip(), *words]


def environment() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(splitveil.__file__).parents[1]), "PATH": "", "COLUMNS": "200"}


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setattr(out, "_width", 200)
    made = typer.Typer()
    made.add_typer(bundle_app, name="bundle")
    made.command("serve")(serve)
    made.command("query")(query)
    return made


def test_show_tells_what_was_agreed(app: typer.Typer, bundle: Bundle) -> None:
    shown = CliRunner().invoke(app, ["bundle", "show", str(bundle.folder)], catch_exceptions=False)
    assert shown.exit_code == 0
    for words in (
        "pets",
        "noise:sigma=0.1",
        "z UINT8 (N, 4, 8, 6)",
        "cat, dog, fox",
        "0.875",
        bundle.manifest.contract,
    ):
        assert words in shown.output
    read = json.loads(
        CliRunner().invoke(app, ["bundle", "show", str(bundle.folder), "--json"], catch_exceptions=False).output
    )
    assert read["manifest"] == json.loads(bundle.manifest.to_json())
    assert read["card"] is None


def test_verify_names_the_altered_file(app: typer.Typer, bundle: Bundle, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    copied.mkdir()
    for path in bundle.folder.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    good = CliRunner().invoke(app, ["bundle", "verify", str(copied)], catch_exceptions=False)
    assert good.exit_code == 0
    assert good.output.count("ok") == 5
    (copied / EDGE).write_bytes(b"other")
    bad = CliRunner().invoke(app, ["bundle", "verify", str(copied)], catch_exceptions=False)
    assert bad.exit_code == 1
    assert bad.output.count("ok") == 4
    assert "edge.onnx is altered" in bad.output


def test_query_answers_about_files(bundle: Bundle, served: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (16, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    np.save(tmp_path / "one.npy", pixels.transpose(2, 0, 1))
    np.save(tmp_path / "two.npy", rng.random((2, *SHAPE)))
    words = [w for name in ("one.png", "one.npy", "two.npy") for w in ("--input", str(tmp_path / name))]
    done = subprocess.run(
        command("query", str(bundle.folder), "--to", served, "--json", *words),
        capture_output=True, text=True, env=environment(), timeout=60, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    picture = bundle.manifest.picture
    assert picture is not None
    assert {key: told[key] for key in sorted(told.keys() - {"milliseconds_p50", "answers", "bytes"})} == {
        "contract": bundle.manifest.contract, "model": "pets", "cut": "custom", "defense": "noise:sigma=0.1,clip=1.0",
        "codec": "uniform:bits=8", "compress": None, "n": 4, "local": 0, "accuracy": None,
        "tested": None, "classes": list(CLASSES),
        "bytes_per_image": 4 * 8 * 6, "picture": picture.model_dump(mode="json"),
        "picture_assumed": False, "skipped": [],
    }  # fmt: skip
    assert told["milliseconds_p50"] > 0
    assert [Path(a["input"]).name for a in told["answers"]] == ["one.png", "one.npy", "two.npy[0]", "two.npy[1]"]
    for answer in told["answers"]:
        odds = np.exp(answer["logits"]) / np.exp(answer["logits"]).sum()
        assert answer["class"] == CLASSES[int(np.argmax(odds))]
        assert answer["confidence"] == answer["top"][0]["probability"] == pytest.approx(odds.max())
        assert answer["probabilities"] == pytest.approx(odds.tolist())
    png, npy = (np.array(told["answers"][i]["logits"]) for i in (0, 1))
    np.testing.assert_allclose(png, npy, atol=0.3)
    assert not np.array_equal(png, npy), "two requests drew the same noise"


def test_query_measures_accuracy_on_data(app: typer.Typer, bundle: Bundle, served: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (12, 16, 12, 3), dtype=np.uint8)
    y = np.arange(12) % 3
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    words = ["query", str(bundle.folder), "--to", served, "--data", f"npz:{tmp_path / 'd.npz'}", "-n", "6"]
    told = json.loads(CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False).output)
    right = [a["class"] == CLASSES[i % 3] for i, a in enumerate(told["answers"])]
    assert told["n"] == 6
    assert told["accuracy"] == pytest.approx(sum(right) / 6)
    shown = CliRunner().invoke(app, words, catch_exceptions=False).output
    assert told["tested"] == Accuracy.of(sum(right), 6).model_dump(mode="json")
    accuracy = f"6 images, accuracy {Accuracy.of(sum(right), 6)}"
    for said in ("class and probability", "bytes sent", "192", accuracy, "p50"):
        assert said in shown


def test_query_refuses_what_the_model_cannot_take(app: typer.Typer, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    np.save(tmp_path / "flat.npy", np.zeros((5, 5), np.float32))
    refused = {
        "text.png": "no picture that Pillow knows",
        "text.npy": "not a plain .npy array",
        "objects.npy": "not a plain .npy array",
        "flat.npy": r"has shape \(5, 5\)",
        "missing.png": "cannot read",
        "missing.npy": "cannot read",
    }
    for name, message in refused.items():
        words = ["query", str(bundle.folder), "--to", "127.0.0.1:1", "--input", str(tmp_path / name)]
        with pytest.raises(DataError, match=message):
            CliRunner().invoke(app, words, catch_exceptions=False)
    for extra in ([], ["--input", "a.png", "--data", "digits"]):
        with pytest.raises(InputError, match="one of them"):
            CliRunner().invoke(
                app, ["query", str(bundle.folder), "--to", "127.0.0.1:1", *extra], catch_exceptions=False
            )
