"""What ``fit`` says, refuses and writes into the bundle."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from scipy.stats import binomtest
from typer.testing import CliRunner, Result

from splitveil.cli import bundle as bundle_commands
from splitveil.cli.fit import run
from splitveil.core.errors import InputError, UnknownNameError
from splitveil.core.records import Accuracy, Manifest
from splitveil.lab.cut import trace
from splitveil.lab.data import load_data
from splitveil.lab.models.loader import load_model, save_weights
from splitveil.lab.protection import protect, right_of
from splitveil.lab.restoring import restore
from splitveil.wire.bundle import Bundle

DATA = "digits?n=300"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("w") / "small.safetensors"
    data = load_data(DATA)
    model = load_model("small", shape=data.shape, classes=10, weights=None).model
    trained, _ = protect(trace(model, torch.zeros(2, *data.shape)).split("relu1"), "none", "raw", data, epochs=6)
    model.load_state_dict(trained.split.edge.state_dict() | trained.split.cloud.state_dict())
    save_weights(model, path)
    return path


def fit(out: Path, *words: object, ok: bool = True) -> Result:
    app = typer.Typer()
    app.command()(run)
    asked = ["small", "--data", DATA, "--at", "relu2", "--out", str(out), *map(str, words)]
    done = CliRunner().invoke(app, asked, catch_exceptions=not ok)
    assert not ok or done.exit_code == 0, done.output
    return done


def manifest(out: Path) -> Manifest:
    return Bundle.load(out).manifest


def said(done: Result) -> str:
    """On both streams, as one line."""
    return " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("defense", "epochs", "name"),
    [
        (("shredder:collection=5",), 5, "shredder"),
        (("noise", "label_smoothing"), 4, "noise + label_smoothing"),
        pytest.param(("label_smoothing",), 4, "label_smoothing", marks=pytest.mark.long),
        pytest.param(("chain:of=[noise + nopeek]",), 4, "chain", marks=pytest.mark.long),
    ],
)
def test_a_defence_that_works_by_training_gets_what_it_needs(
    weights: Path, tmp_path: Path, defense: tuple[str, ...], epochs: int, name: str
) -> None:
    done = fit(tmp_path / "b", "--weights", weights, *(w for d in defense for w in ("--defense", d)))
    assert f"{epochs} epochs: what {name} needs; --epochs changes it" in said(done)
    found = manifest(tmp_path / "b")
    assert (found.epochs, found.untrained) == (epochs, False)


@pytest.mark.parametrize(
    "defense",
    [
        "none", "noise", *(pytest.param(d, marks=pytest.mark.long)
        for d in ("dropout", "noise_for_floor", "chain:of=[noise + dropout]")),
    ],
)  # fmt: skip
def test_what_works_without_training_is_not_trained(weights: Path, tmp_path: Path, defense: str) -> None:
    done = fit(tmp_path / "b", "--weights", weights, "--defense", defense)
    assert "epochs: what" not in said(done)
    assert "never trained" not in said(done)
    assert (manifest(tmp_path / "b").epochs, manifest(tmp_path / "b").untrained) == (0, False)


def test_no_training_has_to_be_asked_for_and_is_told_ever_after(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    done = fit(out, "--weights", weights, "--defense", "label_smoothing", "--defense", "noise", "--epochs", 0)
    assert "works by training and gets none: its defence was never trained" in said(done)
    assert manifest(out).untrained
    assert restore(Bundle.load(out)).untrained
    app = typer.Typer()
    app.command()(bundle_commands.show)
    assert "never trained" in CliRunner().invoke(app, [str(out)]).output


def test_a_manifest_from_before_loads_and_claims_nothing(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    fit(out, "--weights", weights, "--defense", "label_smoothing", "--epochs", 0)
    told = json.loads((out / "manifest.json").read_text())
    for key in ("epochs", "untrained", "tested", "undefended"):
        del told[key]
    (out / "manifest.json").write_text(json.dumps(told))
    old = Bundle.load(out)
    assert (old.manifest.epochs, restore(old).epochs, restore(old).untrained) == (None, None, False)
    app = typer.Typer()
    app.command()(bundle_commands.show)
    shown = CliRunner().invoke(app, [str(out)])
    assert shown.exit_code == 0
    assert "of how many images is not recorded" in " ".join(shown.output.split())


def test_the_undefended_accuracy_stands_beside_the_defended_one(weights: Path, tmp_path: Path) -> None:
    done = fit(tmp_path / "b", "--weights", weights, "--defense", "noise:sigma=3", "--json")
    found, data = json.loads(done.stdout), load_data(DATA)
    plain = load_model("small", shape=data.shape, classes=10, weights=weights).model
    right = int(right_of(plain, data.test).sum())
    n = len(data.test)
    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert found["undefended"]["share"] == right / n
    assert found["undefended"]["interval"] == pytest.approx([theirs.low, theirs.high])
    assert found["task_accuracy"] == pytest.approx(found["tested"]["share"])
    assert found["lost"]["points"] == pytest.approx(100 * (right / n - found["tested"]["share"]))
    kept = manifest(tmp_path / "b")
    assert kept.undefended == Accuracy.of(right, n)
    assert kept.tested == Accuracy.model_validate(found["tested"])
    told = said(fit(tmp_path / "c", "--weights", weights, "--defense", "noise:sigma=3"))
    assert f"undefended {kept.undefended}; lost {100 * (right / n - found['tested']['share']):.2f} points (" in told
    assert f"{kept.tested} of {n:,} test images right" in told


def test_without_weights_there_is_no_undefended_accuracy(tmp_path: Path) -> None:
    done = fit(tmp_path / "b", "--epochs", 1)
    assert "undefended: none, for without --weights there is no trained model" in said(done)
    assert manifest(tmp_path / "b").undefended is None
    assert manifest(tmp_path / "b").tested is not None


def test_a_bundle_is_replaced_by_force_only(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    fit(out, "--weights", weights, "--quantize", "int8")
    before = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
    for words in ((), ("--resume",), ("--quantize", "int8")):
        done = fit(out, "--weights", weights, "--seed", 1, *words, ok=False)
        assert isinstance(done.exception, InputError)
        assert "--force" in str(done.exception)
    assert before == {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
    fit(out, "--weights", weights, "--defense", "noise", "--force")
    assert manifest(out).defense.startswith("noise")
    quantized = fit(tmp_path / "c", "--weights", weights, "--quantize", "int8", ok=False)
    assert quantized.exit_code == 0, "only what would be replaced is in the way"
    (tmp_path / "c").rename(tmp_path / "d")
    quantized = fit(tmp_path / "c", "--weights", weights, "--quantize", "int8", ok=False)
    assert "c-int8 holds a bundle; replace it with --force" in str(quantized.exception)
    assert not (tmp_path / "c").exists()


@pytest.mark.long
def test_a_failed_replacement_leaves_the_old_bundle_whole(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "b"
    fit(out, "--weights", weights)
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("splitveil.wire.bundle.writing._put", full)
    assert isinstance(fit(out, "--weights", weights, "--force", ok=False).exception, OSError)
    assert before == {p.name: p.read_bytes() for p in out.iterdir()}
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


@pytest.mark.long
def test_a_killed_replacement_goes_on_with_resume_alone(weights: Path, tmp_path: Path) -> None:
    """Its checkpoint shows that it was allowed to replace the bundle."""
    out = tmp_path / "b"
    fit(out, "--weights", weights)
    (tmp_path / ".b.partial").mkdir()
    done = fit(out, "--weights", weights, "--force", ok=False)
    assert "--resume" in str(done.exception)
    fit(out, "--weights", weights, "--defense", "noise", "--resume")
    assert manifest(out).defense.startswith("noise")
    assert not (tmp_path / ".b.partial").exists()


def test_protect_in_python_records_it_too(weights: Path) -> None:
    data = load_data(DATA)
    model = load_model("small", shape=data.shape, classes=10, weights=weights).model
    traced = trace(model, torch.zeros(2, *data.shape))
    for defense, epochs, untrained in (("nopeek", 0, True), ("nopeek", 1, False), ("noise", 0, False)):
        protected, _ = protect(traced.split("relu2"), defense, "raw", data, epochs=epochs)
        assert (protected.epochs, protected.untrained) == (epochs, untrained)
    assert np.isfinite(protected(torch.zeros(1, *data.shape)).detach().numpy()).all()


def test_a_recipe_is_followed_and_told(tmp_path: Path) -> None:
    words = ("--epochs", 1, "--codec", "raw", "--json")
    done = fit(tmp_path / "b", "--recipe", "usual:optimizer=muon,average=0.9,keep=last", *words)
    assert json.loads(done.stdout)["recipe"] == (
        "Recipe(epochs=1, lr=0.002, optimizer='muon', momentum=0.9, weight_decay=0.01, average=0.9, batch=0, "
        "smoothing=0.0, keep='last')"
    )


def test_an_unknown_recipe_is_refused(tmp_path: Path) -> None:
    done = fit(tmp_path / "b", "--recipe", "whitnet", ok=False)
    assert isinstance(done.exception, UnknownNameError)
    assert "Did you mean 'whitenet'" in str(done.exception)
    assert not (tmp_path / "b").exists()
