import json
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from .conftest import Command

QUICK = ("--attack", "decoder:size=tiny,epochs=1,steps=5", "--attack", "mle:steps=2")
DIGITS = ("--data", "digits?n=200")


@pytest.fixture
def bundle(splitveil: Command) -> Path:
    done = splitveil(
        "fit", "small", *DIGITS, "--at", "relu3", "--epochs", "2", "--defense", "noise:sigma=0.5", "--out", "b"
    )
    assert done.code == 0, done.err
    return splitveil.folder / "b"


def test_fit_audit_report(splitveil: Command, bundle: Path) -> None:
    done = splitveil("audit", "b", *DIGITS, *QUICK, "-n", "25", "--json", "--out", "a")
    assert done.code in (0, 3), done.err
    card = done.json
    assert card == json.loads((splitveil.folder / "a" / "card.json").read_text())
    assert card["bundle"] == "b"
    assert {r["defense"] for r in card["rows"]} == {"none", "noise:sigma=0.5,clip=1.0"}
    assert json.loads((bundle / "card.json").read_text()) == card
    assert splitveil("bundle", "verify", "b").code == 0
    assert (splitveil.folder / "a" / "samples.png").stat().st_size > 1000
    page = splitveil("report", "a", "--out", "page.html")
    assert page.code == 0, page.err
    assert (splitveil.folder / "page.html").read_text().count("<table") >= 1


def test_cuts_as_json_and_as_a_table(splitveil: Command) -> None:
    found = splitveil("cuts", "resnet20", "--input", "3x16x16", "--json").json
    by = {c["name"]: c for c in found["cuts"]}
    assert by["layer2"]["shape"] == [32, 8, 8]
    assert by["layer2"]["bytes_fp32"] == 4 * by["layer2"]["bytes_u8"] == 4 * 32 * 64
    shown = splitveil("cuts", "resnet20", "--input", "3x16x16")
    assert all(name in shown.out for name in by)
    assert "…" not in shown.out


@pytest.mark.parametrize("kind", ["attacks", "defenses", "metrics", "models", "data", "codecs", "suites"])
def test_list(splitveil: Command, kind: str) -> None:
    done = splitveil("list", kind, "--json")
    assert done.code == 0, done.err
    assert len(done.json) >= 2
    assert all(done.json.values()), "every entry says what it is"


BAD = [
    (("cuts", "resnt20"), "Did you mean 'resnet20'"),
    (("cuts", "resnet20", "--input", "3x32"), "--input 3x32x32"),
    (("cuts", "missing.py:net"), "missing.py"),
    (("audit", "small", "--data", "digist", "--out", "a"), "Did you mean 'digits'"),
    (("audit", "small", "--data", "npz:missing.npz", "--out", "a"), "missing.npz"),
    (("audit", "small", *DIGITS, "--at", "relu9", "--out", "a"), "relu"),
    (("audit", "small", *DIGITS, "--suite", "smokes", "--out", "a"), "Did you mean 'smoke'"),
    (("audit", "small", *DIGITS, "--attack", "mle:step=1", "--out", "a"), "Did you mean 'steps'"),
    (("audit", "small", *DIGITS, "--knows", "all", "--out", "a"), "white-box"),
    (("audit", "small", *DIGITS, "-n", "100000", "--out", "a"), "600"),
    (("audit", "small", *DIGITS, "--aux", "digits", "-n", "30", "--out", "a"), "private"),
    (("audit", "small", *DIGITS, "--weights", "nan.safetensors", "--out", "a"), "nan.safetensors"),
    (("audit", "resnet20", *DIGITS, "--weights", "grey.safetensors", "--out", "a"), "grey.safetensors"),
    (("fit", "small", *DIGITS, "--at", "relu1", "--defense", "noize", "--out", "a"), "Did you mean 'noise'"),
    (("fit", "small", *DIGITS, "--at", "relu1", "--codec", "uniform:bits=1", "--out", "a"), "bits from 2 to 8"),
    (("fit", "small", *DIGITS, "--at", "relu1", "--out", "."), "not a bundle"),
    (("report", "missing"), "missing"),
    (("bundle", "verify", "missing"), "missing"),
    (("audit", "small"), "--data"),
    (("nonsense",), "nonsense"),
]


@pytest.mark.parametrize(("words", "says"), BAD, ids=[" ".join(w)[:60] for w, _ in BAD])
def test_bad_input_is_one_clear_sentence_and_leaves_nothing(
    splitveil: Command, words: tuple[str, ...], says: str
) -> None:
    from splitveil.models.loader import load_model, save_weights

    model = load_model("small", shape=(1, 8, 8), classes=10, weights=None).model
    save_weights(model, splitveil.folder / "grey.safetensors")
    weights = load_file(splitveil.folder / "grey.safetensors")
    weights["fc.bias"][3] = np.nan
    save_file(weights, splitveil.folder / "nan.safetensors")
    before = sorted(splitveil.folder.rglob("*"))
    done = splitveil(*words)
    assert done.code == 2, done.err
    assert says in done.err
    assert "Traceback" not in done.err
    if done.err.startswith("error:"):
        assert done.err.strip().count("\n") == 0
    assert sorted(splitveil.folder.rglob("*")) == before


def test_too_few_images_are_reported_with_exit_code_3(splitveil: Command) -> None:
    done = splitveil("audit", "small", *DIGITS, "--at", "relu3", *QUICK, "-n", "5", "--out", "a")
    assert done.code == 3
    assert "few images" in done.err
    assert (splitveil.folder / "a" / "report.html").exists()


def test_a_killed_audit_goes_on_with_resume(splitveil: Command) -> None:
    words = ("audit", "small", *DIGITS, "--at", "relu1,relu3", *QUICK, "-n", "30", "--json")
    whole = splitveil(*words, "--out", "whole")
    killed = splitveil.start(*words, "--out", "killed")
    units = splitveil.folder / "killed" / "units"
    while len(list(units.glob("*.safetensors"))) < 4 and killed.poll() is None:
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    assert not (splitveil.folder / "killed" / "card.json").exists(), "it was to die before its end"
    assert splitveil(*words, "--out", "killed").code == 2
    resumed = splitveil(*words, "--out", "killed", "--resume")
    assert _timeless(resumed.json) == _timeless(whole.json)


@pytest.mark.slow
def test_a_killed_fit_goes_on_with_resume(splitveil: Command) -> None:
    words = ("fit", "small", "--data", "digits", "--at", "relu3", "--epochs", "12", "--defense", "noise", "--json")
    whole = splitveil(*words, "--out", "whole")
    killed = splitveil.start(*words, "--out", "killed")
    checkpoint = splitveil.folder / ".killed.partial" / "checkpoint.safetensors"
    while not checkpoint.exists() and killed.poll() is None:
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert not (splitveil.folder / "killed").exists(), "it was to die before its end"
    assert "--resume" in splitveil(*words, "--out", "killed").err
    resumed = splitveil(*words, "--out", "killed", "--resume")
    assert resumed.code == 0, resumed.err
    assert resumed.json["losses"] == whole.json["losses"]
    assert resumed.json["task_accuracy"] == whole.json["task_accuracy"]
    for name in ("edge.safetensors", "cloud.safetensors", "edge.onnx", "cloud.onnx"):
        assert (splitveil.folder / "killed" / name).read_bytes() == (splitveil.folder / "whole" / name).read_bytes()
    assert not checkpoint.parent.exists()


def _timeless(card: dict[str, object]) -> dict[str, object]:
    rows = [{k: v for k, v in r.items() if k != "seconds"} for r in card["rows"]]  # type: ignore[attr-defined]
    return {k: v for k, v in card.items() if k not in ("seconds", "rows")} | {"rows": rows}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_demo(splitveil: Command) -> None:
    done = splitveil("demo", "--out", "d")
    assert done.code == 0, done.err
    assert "largest difference to the local model" in done.out
    assert (splitveil.folder / "d" / "report.html").exists()
    assert splitveil("bundle", "verify", "d/bundle-relu3").code == 0
    assert splitveil("demo", "--out", "d").code == 2
