import json

import pytest
from safetensors.torch import save_file

from splitveil.lab.models.loader import load_model
from splitveil.wire.bundle import Bundle

from .conftest import Command

DIGITS = ("plan", "small", "--data", "digits?n=300", "--out", "p")
QUICK = (
    "--cuts", "pool2", "--defense", "none", "--codec", "uniform:bits=8", "-n", "20", "--held-n", "60", "--audits", "1",
    "--attack", "decoder:size=tiny,epochs=1,steps=5",
)  # fmt: skip


@pytest.mark.slow
def test_a_plan_is_a_table_a_record_a_page_and_a_bundle(splitveil: Command) -> None:
    model = load_model("small", shape=(1, 8, 8), classes=10, weights=None).model
    save_file(model.state_dict(), splitveil.folder / "w.safetensors")
    budget = ("--max-edge-macs", "50M", "--max-payload", "1KB", "--max-accuracy-drop", "50", "--max-psnr", "60")
    way = ("--device", "pi5", "--link", "lte", "--server", "jetson", "--max-latency", "900ms")
    words = (*DIGITS, *QUICK, *budget, *way, "--weights", "w.safetensors")
    done = splitveil(*words)
    assert done.code == 0, done.err
    found = json.loads((splitveil.folder / "p" / "plan.json").read_text())
    assert found["recommended"] == 0
    assert found["budget"]["edge_macs"] == 50_000_000
    assert found["budget"]["latency"] == 0.9
    assert found["choices"][0]["figures"]["psnr"]["measured"]
    assert "recommended" in done.out
    assert "over cuts:" in done.out
    assert "binding constraint" in done.out
    assert Bundle.load(splitveil.folder / "p" / "bundle").manifest.cut.name == "pool2"
    assert "<html" in (splitveil.folder / "p" / "plan.html").read_text()
    again = splitveil(*words, "--max-payload", "3", "--resume", "--json")
    assert again.code == 4, "nothing keeps the budget"
    assert again.json["binding"] == ["payload"]


@pytest.mark.slow
def test_a_plan_without_time_says_that_nothing_was_measured_and_how_long_it_takes(splitveil: Command) -> None:
    """Exit code 5, since nobody knows whether anything keeps the budget."""
    budget = ("--max-ssim", "0.9", "--max-accuracy-drop", "90")
    done = splitveil(*DIGITS, *QUICK, *budget, "--minutes", "0.001", "--json")
    assert done.code == 5, done.err
    found = done.json
    assert (found["recommended"], found["measured"], found["binding_measured"]) == (None, 0, False)
    assert found["need"]["whole"] >= found["need"]["one"] > 0
    assert found["reason"].startswith("Nothing was measured: ")
    page = (splitveil.folder / "p" / "plan.html").read_text()
    assert "Nothing was measured, so nothing can be said of this budget yet." in page
    assert "keeps this budget" not in page
    shown = splitveil(*DIGITS, *QUICK, *budget, "--minutes", "0.001", "--resume")
    assert shown.code == 5
    assert "Nothing was measured" in shown.out
    assert "minutes with one choice measured" in shown.out


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("--max-payload", "4XB"), "--max-payload 4KB"),
        (("--max-latency", "50ms"), "add --device and --link"),
        (("--device", "pi6"), "Did you mean 'pi5'"),
        (("--cuts", "poool1"), "Did you mean 'pool1'"),
    ],
)
def test_mistakes_name_their_remedy(splitveil: Command, words: tuple[str, ...], remedy: str) -> None:
    done = splitveil(*DIGITS, *words)
    assert done.code == 2, done
    assert remedy in done.err
    assert not (splitveil.folder / "p").exists()
