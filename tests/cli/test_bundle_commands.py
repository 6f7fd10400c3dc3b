"""``bundle split``, ``verify``, ``quantize`` and ``export`` where something is wrong or is JSON."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from splitveil.cli import app
from splitveil.core.errors import BundleError, InputError
from splitveil.lab.data import Dataset
from splitveil.wire.bundle import Bundle, make_keys, write_half
from tests.lab.export.conftest import bundle, data

__all__ = ["bundle", "data"]


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)


@pytest.fixture
def spec(data: Dataset, tmp_path: Path) -> str:
    parts = {"train": data.train, "test": data.test}
    arrays = {f"x_{name}": part.x.transpose(0, 2, 3, 1) for name, part in parts.items()}
    np.savez(tmp_path / "d.npz", **arrays, **{f"y_{name}": part.y for name, part in parts.items()})  # type: ignore[arg-type]
    return f"npz:{tmp_path / 'd.npz'}"


def test_quantize_tells_the_record(bundle: Bundle, spec: str, tmp_path: Path) -> None:
    told = json.loads(
        run("bundle", "quantize", bundle.folder, "--data", spec, "--out", tmp_path / "q", "--json").stdout
    )
    found = Bundle.load(tmp_path / "q").manifest.quantization
    assert found is not None
    assert told == json.loads(found.to_json())
    assert told["calibrated_on"] == 48
    again = ("bundle", "quantize", bundle.folder, "--data", spec, "--out", tmp_path / "q", "-n", "16")
    with pytest.raises(InputError, match=r"q holds a bundle; replace it with --force"):
        run(*again)
    assert f"q, served as {bundle.manifest.name}\n" in run("bundle", "show", tmp_path / "q").stdout
    assert f"q, served as {bundle.manifest.name}\n" in run("bundle", "verify", tmp_path / "q").stdout
    words = run(*again, "--force").stdout
    assert "the leakage card was of the float edge" in words
    assert "16 images set the scales" in words


def test_verify_tells_what_is_wrong_in_words_and_in_json(bundle: Bundle, tmp_path: Path) -> None:
    _, public = make_keys(tmp_path / "owner")
    half = write_half(bundle, "edge", tmp_path / "edge")
    assert run("bundle", "verify", half.folder).exit_code == 0
    done = run("bundle", "verify", half.folder, "--key", public, "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert told["signed"] is False
    assert [problem.partition(" is ")[2][:10] for problem in told["problems"]] == ["not signed"]
    (half.folder / "edge.onnx").write_bytes(b"other")
    assert "edge.onnx is altered" in run("bundle", "verify", half.folder).output


def test_show_tells_which_half_it_is(bundle: Bundle, tmp_path: Path) -> None:
    write_half(bundle, "cloud", tmp_path / "cloud")
    shown = run("bundle", "show", tmp_path / "cloud").stdout
    assert "the cloud half alone" in shown
    assert "channels first" in shown


def test_mistakes_are_one_sentence(bundle: Bundle, spec: str, tmp_path: Path) -> None:
    edge = write_half(bundle, "edge", tmp_path / "edge").folder
    with pytest.raises(BundleError, match="expected the cloud half"):
        run("bundle", "split", edge, "--half", "cloud", "--out", tmp_path / "c")
    with pytest.raises(BundleError, match="expected the cloud half"):
        run("bundle", "quantize", edge, "--data", spec, "--out", tmp_path / "q")
    with pytest.raises(BundleError, match="expected the cloud half"):
        run("bundle", "export", edge, tmp_path / "m", "--to", "triton")
    with pytest.raises(InputError, match="--tls-secret and --token-secret"):
        run(
            "bundle",
            "export",
            bundle.folder,
            tmp_path / "s.yaml",
            "--to",
            "kserve",
            "--image",
            "i",
            "--storage",
            "a://b",
        )
    with pytest.raises(InputError, match="int8"):
        run("fit", "small", "--data", "digits", "--at", "relu1", "--out", tmp_path / "b", "--quantize", "int4")
    assert run("bundle", "split", edge, "--half", "both", "--out", tmp_path / "c").exit_code == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.npz", "edge"]


def test_fit_quantizes_beside_the_bundle(tmp_path: Path) -> None:
    out = tmp_path / "b"
    words = ("fit", "small", "--data", "digits", "--at", "relu1", "--epochs", "1", "--quantize", "int8", "--json")
    told = json.loads(run(*words, "--out", out).stdout)
    integer = Bundle.load(tmp_path / "b-int8").manifest
    assert integer.quantization is not None
    assert told["quantization"] == json.loads(integer.quantization.to_json())
    assert integer.quantization.source == told["contract"] == Bundle.load(out).manifest.contract
    assert told["quantization"]["accuracy_before"] == pytest.approx(told["task_accuracy"])


def test_halves_and_exports_are_replaced_by_force_only(bundle: Bundle, tmp_path: Path) -> None:
    folder = bundle.folder
    for words in (
        ("bundle", "split", folder, "--half", "edge", "--out", tmp_path / "edge"),
        ("bundle", "export", folder, tmp_path / "models", "--to", "triton"),
        (
            "bundle",
            "export",
            folder,
            tmp_path / "service.yaml",
            "--to",
            "kserve",
            "--image",
            "r/i:1",
            "--storage",
            "s3://m",
            "--insecure",
        ),
    ):
        assert run(*words).exit_code == 0
        held = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
        with pytest.raises(InputError, match=r"replace it with --force"):
            run(*words)
        assert held == {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
        assert run(*words, "--force").exit_code == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="not a bundle"):
        run("bundle", "split", folder, "--half", "edge", "--out", tmp_path / "mine", "--force")
