"""A bundle runs no code: what its manifest names as a model's file is not imported unless the user gives it again."""

import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from splitveil.cli import app
from splitveil.core.errors import BundleError, InputError
from splitveil.lab.cut import split
from splitveil.lab.defenses.base import Protected
from splitveil.lab.defenses.none import Undefended
from splitveil.lab.export import save
from splitveil.lab.models.loader import load_model
from splitveil.lab.restoring import restore
from splitveil.wire.bundle import EDGE_WEIGHTS, MANIFEST, Bundle, parts, write_bundle
from splitveil.wire.codecs.raw import Raw

SHAPE = (1, 8, 8)
SOURCE = """
from pathlib import Path
from torch import nn
Path(__file__).with_name("ran").touch()

def make(classes=10):
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, classes))
"""


@pytest.fixture
def own(tmp_path: Path) -> Bundle:
    """A bundle whose model is made by a file, which lies in the working directory."""
    (tmp_path / "own.py").write_text(SOURCE)
    loaded = load_model(f"{tmp_path / 'own.py'}:make", shape=SHAPE, classes=10, weights=None)
    cut = split(loaded.model, "1", torch.zeros(2, *SHAPE))
    protected = Protected(cut, Undefended(), Raw()).eval()
    bundle = save(
        protected, tmp_path / "made", name="made", model_spec=loaded.name, image_shape=SHAPE,
        classes=[str(i) for i in range(10)],
    )  # fmt: skip
    for name in [name for name in sys.modules if name.startswith("_splitveil_own")]:
        del sys.modules[name]
    (tmp_path / "ran").unlink()
    return bundle


def named(bundle: Bundle, spec: str) -> Bundle:
    files = parts(bundle, bundle.manifest.files)
    return write_bundle(bundle.folder, bundle.manifest.model_copy(update={"model": spec}), files)


def test_a_file_that_a_bundle_names_is_not_run(own: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for spec in (own.manifest.model, "own.py:make", f"{tmp_path}/own.py:make?logits=a:b", "own.py", "made/../own.py:x"):
        with pytest.raises(InputError, match=r"--trust-model|PATH\.py:FUNCTION"):
            restore(named(own, spec))
    assert not (tmp_path / "ran").exists()
    x = torch.rand(3, *SHAPE)
    again = restore(named(own, "gone.py:make"), model=f"{tmp_path / 'own.py'}:make")
    assert (tmp_path / "ran").exists()
    assert again(x).shape == (3, 10)


def test_the_commands_take_the_file_from_the_user_alone(own: Bundle, tmp_path: Path) -> None:
    bundle = named(own, "gone.py:make")
    asked = ["audit", str(bundle.folder), "--data", "digits", "--out", str(tmp_path / "out"), "--attack", "mean"]

    def run(*more: str) -> BaseException | None:
        return CliRunner().invoke(app, [*asked, "-n", "4", "--accelerator", "cpu", *more]).exception

    for wrong, words in (([], "--trust-model"), (["--trust-model", "small"], "expected PATH.py")):
        error = run(*wrong, "--resume")
        assert isinstance(error, InputError)
        assert words in str(error)
    assert not (tmp_path / "ran").exists()
    run("--resume", "--trust-model", str(tmp_path / "own.py"))
    assert (tmp_path / "ran").exists()


def test_weights_that_are_none_are_one_error(own: Bundle, tmp_path: Path) -> None:
    files = {**parts(own, own.manifest.files), EDGE_WEIGHTS: b"\xff" * 40}
    broken = write_bundle(own.folder, own.manifest, files)
    with pytest.raises(BundleError, match="holds no weights"):
        restore(broken, model=f"{tmp_path / 'own.py'}:make")
    assert (own.folder / MANIFEST).exists()
