import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from splitveil.lab.cut import trace

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


def test_a_chain_is_named_whole(splitveil: Command) -> None:
    parts = ("--defense", "label_smoothing", "--defense", "noise:sigma=0.3")
    done = splitveil("fit", "small", *DIGITS, "--at", "relu3", "--epochs", "1", *parts, "--out", "b")
    assert done.code == 0, done.err
    name = "chain:of=[label_smoothing:alpha=0.3 + noise:sigma=0.3,clip=1.0]"
    assert f"b: small cut at relu3, {name}, uniform:bits=8; " in done.out


def test_cuts_as_json_and_as_a_table(splitveil: Command) -> None:
    found = splitveil("cuts", "resnet20", "--input", "3x16x16", "--json").json
    by = {c["name"]: c for c in found["cuts"]}
    assert by["layer2"]["shape"] == [32, 8, 8]
    assert by["layer2"]["bytes_fp32"] == 4 * by["layer2"]["bytes_u8"] == 4 * 32 * 64
    shown = splitveil("cuts", "resnet20", "--input", "3x16x16")
    assert all(name in shown.out for name in by)
    assert "…" not in shown.out


@pytest.mark.parametrize("kind", ["attacks", "defenses", "metrics", "models", "data", "codecs", "recipes", "suites"])
def test_list(splitveil: Command, kind: str) -> None:
    done = splitveil("list", kind, "--json")
    assert done.code == 0, done.err
    assert len(done.json) >= 2
    assert all(done.json.values()), "every entry says what it is"
    assert "``" not in done.out, "markup of the documentation"


BAD = [
    (("cuts", "resnt20"), "Did you mean 'resnet20'"),
    (("cuts", "resnet20", "--input", "3x32"), "--input 3x32x32"),
    (("cuts", "missing.py:net"), "missing.py"),
    (("audit", "bundel", *DIGITS, "--out", "a"), "A bundle would be a folder, and there is none of that name"),
    (("audit", "small", "--data", "digist", "--out", "a"), "Did you mean 'digits'"),
    (("audit", "small", "--data", "npz:missing.npz", "--out", "a"), "missing.npz"),
    (("audit", "small", *DIGITS, "--at", "relu9", "--out", "a"), "relu"),
    (("audit", "small", *DIGITS, "--suite", "smokes", "--out", "a"), "Did you mean 'smoke'"),
    (("audit", "small", *DIGITS, "--attack", "mle:step=1", "--out", "a"), "Did you mean 'steps'"),
    (("audit", "small", *DIGITS, "--seeds", "0,x", "--out", "a"), "0,1,2 for --seeds"),
    (("audit", "small", *DIGITS, "--seeds", "1,1", "--out", "a"), "different whole numbers"),
    (("audit", "small", *DIGITS, "--knows", "all", "--out", "a"), "white-box"),
    (("audit", "small", *DIGITS, "-n", "100000", "--out", "a"), "600"),
    (("audit", "small", *DIGITS, "--aux", "digits", "-n", "30", "--out", "a"), "private"),
    (("audit", "small", *DIGITS, "--weights", "nan.safetensors", "--out", "a"), "nan.safetensors"),
    (("audit", "resnet20", *DIGITS, "--weights", "grey.safetensors", "--out", "a"), "grey.safetensors"),
    (("fit", "small", *DIGITS, "--at", "relu1", "--defense", "noize", "--out", "a"), "Did you mean 'noise'"),
    (("fit", "small", *DIGITS, "--at", "relu1", "--codec", "uniform:bits=1", "--out", "a"), "bits from 2 to 8"),
    (("fit", "small", *DIGITS, "--at", "relu1", "--out", "."), "expected a folder with a name"),
    (("report", "missing"), "missing"),
    (("bundle", "verify", "missing"), "missing"),
    (("audit", "small"), "--data"),
    (("nonsense",), "nonsense"),
]


@pytest.mark.parametrize(("words", "says"), BAD, ids=[" ".join(w)[:60] for w, _ in BAD])
def test_bad_input_is_one_clear_sentence_and_leaves_nothing(
    splitveil: Command, words: tuple[str, ...], says: str
) -> None:
    from splitveil.lab.models.loader import load_model, save_weights

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
    assert done.err.count("few images: 5 private images, expected at least 20") == 1, "rows share it: told once"
    assert (splitveil.folder / "a" / "report.html").exists()


def test_several_seeds_are_summed_up(splitveil: Command) -> None:
    words = ("audit", "small", *DIGITS, "--at", "relu3", "--attack", "mle:steps=2", "-n", "25", "--seeds", "0,1")
    done = splitveil(*words, "--json", "--out", "a")
    assert done.code in (0, 3), done.err
    folder = splitveil.folder / "a"
    assert done.json == json.loads((folder / "summary.json").read_text())
    cards = [json.loads((folder / f"seed-{k}" / "card.json").read_text()) for k in (0, 1)]
    by = {r["attack"]: r["measures"]["psnr"] for r in done.json["rows"]}
    assert by["mle"]["values"] == [r["psnr"] for c in cards for r in c["rows"] if r["attack"] == "mle"]
    low, high = by["mle"]["interval"]
    assert low < by["mle"]["mean"] < high
    assert by["mle"]["mean"] == pytest.approx(sum(by["mle"]["values"]) / 2)
    assert (folder / "report.html").exists()
    assert splitveil(*words, "--out", "a").code == 2
    shown = splitveil(*words, "--out", "a", "--resume")
    assert "95 % over seeds" in shown.out
    assert "seeds 0, 1" in shown.out


@pytest.mark.long
def test_another_attack_is_added_with_resume_and_shared_with_a_cache(splitveil: Command) -> None:
    words = ("audit", "small", *DIGITS, "--at", "relu3", "-n", "25", "--samples", "0", "--cache", "c")
    first = splitveil(*words, "--attack", "mle:steps=2", "--out", "a")
    assert "mle relu3" in first.err
    longer = splitveil(*words, "--attack", "mle:steps=2", "--attack", "mle:steps=3", "--out", "a", "--resume")
    assert "mle:steps=3" in longer.out, "attacks of one name are told apart"
    assert longer.err.count("mle relu3") == 1
    other = splitveil(*words, "--attack", "mle:steps=3", "--aux-n", "400", "--out", "b")
    assert other.code in (0, 3), other.err
    assert other.err.count("mle relu3") == 1, "other images of the adversary are another audit"
    again = splitveil(*words, "--attack", "mle:steps=3", "--out", "d")
    assert "mle relu3" not in again.err
    assert "features of all cuts" not in again.err
    for line in ("strongest single attack: ", "95 %"):
        assert line in again.out


@pytest.mark.long
def test_labels_have_a_table_of_their_own(splitveil: Command) -> None:
    draws = np.random.default_rng(0)
    y = draws.integers(0, 2, 300)
    x = (draws.random((300, 16, 16)) * 100 + 60 * y[:, None, None]).astype(np.uint8)
    np.savez(
        splitveil.folder / "d.npz", x_train=x[:100], y_train=y[:100], x_test=x[100:], y_test=y[100:],
        lit_train=y[:100], lit_test=1 - y[100:],
    )  # fmt: skip
    done = splitveil(
        "audit", "small", "--data", "npz:d.npz", "--at", "relu1", "--attack", "attribute:epochs=2", "-n", "40",
        "--out", "a",
    )  # fmt: skip
    assert done.code in (0, 3), done.err
    assert "labels read from the features" in done.out
    card = json.loads((splitveil.folder / "a" / "card.json").read_text())
    assert [r["attribute"] for r in card["inferences"]] == ["task", "lit"]
    assert all(r["accuracy_interval"][0] <= r["accuracy"] for r in card["inferences"])


@pytest.mark.long
def test_further_metrics_a_judge_and_the_criterion(splitveil: Command) -> None:
    from splitveil.lab.data import load_data
    from splitveil.lab.models.loader import load_model
    from splitveil.lab.protection import protect

    digits = load_data("digits")
    split = trace(
        load_model("small", shape=digits.shape, classes=10, weights=None, seed=3).model, torch.zeros(2, 1, 8, 8)
    )
    judge, _ = protect(split.split("relu1"), "none", "raw", digits, epochs=4)
    weights = judge.split.edge.state_dict() | judge.split.cloud.state_dict()
    save_file({k: v.numpy() for k, v in weights.items()}, splitveil.folder / "judge.safetensors")
    args = (
        "audit", "small", "--data", "digits", "--at", "relu1,relu2,relu3", "--attack", "linear", "-n", "60",
        "--aux-n", "300", "--metric", "ms_ssim", "--metric", "registered_psnr:shift=2", "--judge", "small",
        "--judge-weights", "judge.safetensors", "--criterion", "--out", "a",
    )  # fmt: skip
    done = splitveil(*args)
    assert done.code in (0, 3), done.err
    for words in ("further metrics", "pa@small", "pi_q5@small", "ms_ssim", "criterion: a/criterion.html", "R_c^2/D"):
        assert words in done.out, words
    card = json.loads((splitveil.folder / "a" / "card.json").read_text())
    linear = next(r for r in card["rows"] if r["attack"] == "linear")
    assert linear["extra"]["registered_psnr:shift=2"]["mean"] >= linear["psnr"] - 1e-4
    assert 0 <= linear["extra"]["pi@small"]["mean"] <= 1
    told = json.loads((splitveil.folder / "a" / "criterion.json").read_text())
    assert [c["cut"] for c in told["cuts"]] == ["relu1", "relu2", "relu3"]
    assert (splitveil.folder / "a" / "criterion.html").read_text().count('class="cutpage"') == 3
    page = (splitveil.folder / "a" / "report.html").read_text()
    assert "Further metrics" in page
    assert "Privacy accuracy" in page
    x, y = np.random.default_rng(0).integers(0, 256, (350, 8, 8), "uint8"), np.arange(350) % 10
    np.savez(splitveil.folder / "few.npz", x_train=x[150:], y_train=y[150:], x_test=x[:150], y_test=y[:150])
    small = splitveil("audit", "small", "--data", "npz:few.npz", "--at", "relu3", *QUICK, "--criterion", "--out", "b")
    assert small.code == 2
    assert "at least 200 test images for the criterion" in small.err
    wrong = splitveil(*args[:-3], "--metric", "msssim", "--out", "b")
    assert wrong.code == 2
    assert "Did you mean 'ms_ssim'?" in wrong.err
    assert not (splitveil.folder / "b").exists()


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
def test_demo(splitveil: Command) -> None:
    done = splitveil("demo", "--out", "d")
    assert done.code == 0, done.err
    assert "largest difference to the local model" in done.out
    assert (splitveil.folder / "d" / "report.html").exists()
    assert splitveil("bundle", "verify", "d/bundle-relu3").code == 0
    assert splitveil("demo", "--out", "d").code == 2
