"""The public surface, and what a device without torch can do with it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import splitveil
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.export import save
from splitveil.report import render
from tests.device_only import device_only


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", device_only() + code], capture_output=True, text=True, check=False)


def test_names_are_sorted_and_all_there() -> None:
    assert splitveil.__all__ == sorted(splitveil.__all__)
    for name in splitveil.__all__:
        assert getattr(splitveil, name) is not None
    assert set(splitveil.__all__) <= set(dir(splitveil))
    with pytest.raises(AttributeError):
        splitveil.nonsense  # noqa: B018


def test_importing_it_imports_no_torch() -> None:
    done = run("import splitveil; assert 'torch' not in sys.modules; print(splitveil.__version__)")
    assert done.stdout.strip() == splitveil.__version__, done.stderr


@pytest.mark.parametrize("name", ["audit", "cuts", "load_model", "protect", "View", "Defense", "fit"])
def test_lab_names_say_what_to_install(name: str) -> None:
    done = run(
        f"import splitveil\ntry:\n    splitveil.{name}\nexcept splitveil.MissingExtraError as error:\n    print(error)"
    )
    assert "pip install 'splitveil[lab]'" in done.stdout, done.stderr
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("name", ["Bundle", "Card", "Codec", "Edge", "Manifest"])
def test_device_names_need_no_torch(name: str) -> None:
    done = run(f"import splitveil; print(splitveil.{name}.__name__)")
    assert done.stdout.strip() == name, done.stderr


@pytest.mark.parametrize("command", ["cuts", "audit", "fit", "demo"])
def test_lab_commands_say_what_to_install(command: str) -> None:
    words = {
        "cuts": ["small"],
        "audit": ["small", "--data", "digits", "--out", "x"],
        "demo": ["--out", "x"],
        "fit": ["small", "--data", "digits", "--at", "relu1", "--out", "x"],
    }[command]
    done = run(f"sys.argv = ['splitveil', {command!r}, *{words!r}]\nfrom splitveil.cli import main\nmain()")
    assert done.returncode == 1, done.stderr
    assert "pip install 'splitveil[lab]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_is_instant() -> None:
    """Generous, since the machine may be busy; the imports are what is held."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "splitveil", "--help"], capture_output=True, text=True, check=True)
    assert time.perf_counter() - start < 5
    assert all(word in done.stdout for word in ("demo", "cuts", "fit", "audit", "bundle", "serve", "query", "report"))
    heavy = run(
        "from splitveil.cli import app\nprint([m for m in ('numpy', 'torch', 'onnxruntime') if m in sys.modules])"
    )
    assert heavy.stdout.strip() == "[]", heavy.stderr


def test_folders_and_files_may_be_text(tmp_path: Path) -> None:
    data = splitveil.load_data("digits?n=200")
    net = splitveil.load_model("small", shape=data.shape, classes=10, weights=None).model
    split = splitveil.trace(net, torch.zeros(2, *data.shape)).split("relu3")
    protected, _ = splitveil.protect(split, "noise", "raw", data, epochs=1, checkpoint=f"{tmp_path}/run.safetensors")
    assert (tmp_path / "run.safetensors").exists()
    save(
        protected, f"{tmp_path}/bundle", name="digits", model_spec="small", image_shape=data.shape, classes=data.classes
    )
    assert splitveil.Bundle.load(f"{tmp_path}/bundle").manifest.name == "digits"
    subject = splitveil.Subject.of_split(protected, model="small", weights="none")
    found = splitveil.audit(subject, data, suite=custom_suite(["linear"]), n=20, out=f"{tmp_path}/audit", samples=0)
    assert splitveil.Card.load(f"{tmp_path}/audit/card.json") == found.card
    assert render([f"{tmp_path}/audit"], f"{tmp_path}/page.html").stat().st_size > 0
