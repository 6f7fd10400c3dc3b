"""Whatever fails while writing loses no finished result, and what can be known beforehand is refused beforehand."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from splitveil.cli import audit, compare, fit, plan
from splitveil.core.errors import (
    InputError,
    MissingExtraError,
    SplitVeilError,
    ThreatModelError,
    UnknownNameError,
    WriteError,
)
from splitveil.core.records import Card, Comparison, Plan, write_atomically
from splitveil.lab.planning.planner import Planner
from splitveil.lab.store import Store
from splitveil.report import render_findings
from splitveil.wire.bundle import Bundle
from tests.lab.metrics.test_perceptual import files

DATA = "digits"
QUICK: dict[str, Any] = {"attack": ["linear"], "n": 20}


RUNS: dict[str, Callable[[Path], None]] = {
    "audit": lambda out: audit.run("small", DATA, out, **QUICK),
    "compare": lambda out: compare.run("small", DATA, "relu3", ["noise"], out, **QUICK),
    "plan": lambda out: plan.run("small", DATA, out, **QUICK),
}


def audited(target: str, out: Path, **more: Any) -> None:
    """An audit of a net without weights, which is told to be barely trained."""
    with pytest.raises(typer.Exit) as ended:
        audit.run(target, DATA, out, **{**QUICK, **more})
    assert ended.value.exit_code == audit.UNTRUSTED


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


BROKEN = [
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("non contiguous tensor"),
    PermissionError(errno.EACCES, "Permission denied"),
]


@pytest.mark.parametrize("error", BROKEN, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("part", ["samples_picture", "render"])
def test_a_picture_or_a_page_that_fails_costs_no_result(
    part: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a"
    with monkeypatch.context() as patched:
        patched.setattr(f"splitveil.report.{part}", failing(error))
        with pytest.raises(WriteError) as told:
            audit.run("small", DATA, out, at="relu3", as_json=True, **QUICK)
    said = str(told.value)
    assert "could not write" in said
    assert ("samples.png" if part == "samples_picture" else "report.html") in said
    assert f"run `splitveil report {out}`" in said
    assert said.count("\n") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((out / "card.json").read_text())
    assert (out / "report.html").exists() == (part == "samples_picture"), "the others are still written"
    assert (out / "samples.png").exists() == (part == "render")
    assert "How the images differ" in render_findings([out], tmp_path / "page.html").read_text()


@pytest.mark.parametrize("name", ["scores.safetensors", "samples.safetensors"])
def test_the_card_is_there_before_scores_and_pictures(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        if path.name == name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_atomically(path, content)

    out = tmp_path / "a"
    with monkeypatch.context() as patched:
        patched.setattr("splitveil.lab.auditing.outcome.write_atomically", full)
        with pytest.raises(WriteError, match=rf"{name} \(No space left on device\).*card\.json.*--resume"):
            audit.run("small", DATA, out, at="relu3", **QUICK)
    card = Card.load(out / "card.json")
    assert (out / "scores.safetensors").exists() == (name == "samples.safetensors")
    audited("small", out, at="relu3", resume=True)
    again = Card.load(out / "card.json")
    assert [(r.attack, r.psnr, r.seconds) for r in again.rows] == [(r.attack, r.psnr, r.seconds) for r in card.rows]


def test_a_disk_that_is_full_from_the_second_attack_on_keeps_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, kept = tmp_path / "a", list[str]()

    def full(path: Path, content: bytes) -> None:
        if path.suffix == ".safetensors" and len(kept) >= 3:
            with Path("/dev/full").open("wb", buffering=0) as disk:
                disk.write(content)
        kept.extend([path.name] * (path.suffix == ".safetensors"))
        write_atomically(path, content)

    with monkeypatch.context() as patched:
        patched.setattr("splitveil.lab.store.shelf.write_atomically", full)
        with pytest.raises(WriteError, match=r"No space left on device\); what was finished is in .*units: make room"):
            audit.run("small", DATA, out, at="relu3", **QUICK)
    assert sorted(p.name for p in (out / "units").glob("*.safetensors")) == sorted(kept)
    found = list[str]()
    monkeypatch.setattr(Store, "keep", lambda _, facts, *__, **___: found.append(facts.name))
    audited("small", out, at="relu3", resume=True)
    assert len(found) == 2, "linear and nearest: nothing that was kept is made again"


def test_a_full_disk_leaves_no_half_file_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", failing(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match="No space") as told:
        write_atomically(tmp_path / "card.json", b"{}")
    assert told.value.filename == str(tmp_path / "card.json")
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_cannot_take_its_card_costs_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit.run("small", DATA, "relu3", tmp_path / "b", epochs=0)
    with monkeypatch.context() as patched:
        patched.setattr("splitveil.wire.bundle.with_card", failing(PermissionError(errno.EACCES, "Permission denied")))
        with pytest.raises(WriteError, match=r"the card in .*/b \(Permission denied\)"):
            audit.run(str(tmp_path / "b"), DATA, tmp_path / "a", **QUICK)
    assert (tmp_path / "a" / "report.html").exists()
    assert Bundle.load(tmp_path / "b").card is None
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(SplitVeilError, match=r"notes\.txt is not listed"):
        audit.run(str(tmp_path / "b"), DATA, tmp_path / "c", **QUICK)
    assert not (tmp_path / "c" / "units").exists(), "before any work"


def test_a_criterion_that_cannot_be_drawn_costs_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitveil.lab.auditing.criterion.measure.FAMILIES", {})
    monkeypatch.setattr("splitveil.report.render_criterion", failing(ValueError("a template")))
    with pytest.raises(WriteError, match=r"criterion\.html \(ValueError: a template\)"):
        audit.run("small", DATA, tmp_path / "a", at="relu3", criterion=True, **QUICK)
    assert {p.name for p in (tmp_path / "a").iterdir()} >= {"card.json", "report.html", "criterion.json"}


def test_a_comparison_outlives_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "c"
    with monkeypatch.context() as patched:
        patched.setattr("splitveil.report.render_comparison", failing(ValueError("a template")))
        with pytest.raises(WriteError, match=rf"comparison\.html.*comparison\.json.*splitveil report {out}"):
            compare.run("small", DATA, "relu3", ["noise"], out, drop=[50.0], seeds="0", epochs=1, trials=1, **QUICK)
    assert Comparison.load(out / "comparison.json").contenders
    assert (out / "comparison.svg").exists()
    assert render_findings([out], tmp_path / "page.html").exists()


def test_a_comparison_on_a_full_disk_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitveil.lab.store.shelf.write_atomically", failing(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(WriteError, match=r"No space left\); what was finished is in .*/c: make room.*--resume"):
        compare.run("small", DATA, "relu3", ["noise"], tmp_path / "c", seeds="0", epochs=0, trials=1, **QUICK)


@pytest.mark.long
def test_a_plan_outlives_its_bundle_and_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "p"
    words: dict[str, Any] = {"cuts": "relu3", "defense": ["none"], "codec": ["raw"], "audits": 1, "epochs": 0, **QUICK}
    with monkeypatch.context() as patched:
        patched.setattr(Planner, "shipped", failing(OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(WriteError, match=r"the bundle in .*/p \(No space left on device\).*plan\.json.*--resume"):
            plan.run("small", DATA, out, **words)
    assert Plan.load(out / "plan.json").choices
    with monkeypatch.context() as patched:
        patched.setattr("splitveil.report.render_plan", failing(ValueError("a template")))
        with pytest.raises(WriteError, match=r"plan\.html"):
            plan.run("small", DATA, out, resume=True, **words)
    assert Plan.load(out / "plan.json").bundle == "bundle"
    assert render_findings([out], tmp_path / "page.html").exists()


def lpips_spec(folder: Path) -> str:
    backbone, heads = files(folder)
    return f"lpips:backbone_weights={backbone},lin_weights={heads}"


class Worked(Exception):  # noqa: N818
    """Features were computed."""


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever computes features fails the test."""
    monkeypatch.setattr("splitveil.lab.auditing.work.collect", failing(Worked()))
    monkeypatch.setattr("splitveil.lab.comparing.training.protect", failing(Worked()))
    monkeypatch.setattr("splitveil.lab.planning.planner.curves", failing(Worked()))


@pytest.fixture
def grey(tmp_path: Path) -> str:
    """28 x 28."""
    draws = np.random.default_rng(0)
    images = {f"x_{part}": draws.integers(0, 256, (60, 28, 28, 1), np.uint8) for part in ("train", "test")}
    np.savez(tmp_path / "grey.npz", **images, y_train=np.arange(60) % 5, y_test=np.arange(60) % 5)  # type: ignore[arg-type]
    return f"npz:{tmp_path / 'grey.npz'}"


EARLY: list[tuple[dict[str, Any], type[SplitVeilError], str]] = [
    ({"attack": ["mle"], "knows": "black-box"}, ThreatModelError, "mle needs WEIGHTS, DEFENSE as well"),
    ({"attack": ["lineer"]}, UnknownNameError, "Did you mean 'linear'"),
    ({"attack": ["linear:x=1"]}, InputError, "x"),
    ({"n": 100}, InputError, "at most 60 private images"),
    ({"at": "relu9"}, InputError, "relu"),
    ({"metric": ["nonsense"]}, UnknownNameError, "nonsense"),
    ({"metric": ["lpips"]}, InputError, r"at least 31 pixels a side, got \(28, 28\)"),
    ({"read_plates": True}, InputError, "expected plates"),
    ({"criterion": True}, InputError, "200 test images"),
    ({"judge": "small"}, InputError, "--judge-weights"),
    ({"suite": "smokey"}, UnknownNameError, "smoke"),
    ({"seeds": "0,0"}, InputError, "different whole numbers"),
]


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize(("words", "error", "says"), EARLY, ids=[str(w) for w, *_ in EARLY])
def test_what_can_be_known_is_refused_before_features(
    words: dict[str, Any], error: type[SplitVeilError], says: str, grey: str, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"at": "relu3", "attack": ["linear"], "n": 20} | words
    if "suite" in words:
        del given["attack"]
    if words.get("metric") == ["lpips"]:
        given["metric"] = [lpips_spec(tmp_path)]
    with pytest.raises(error, match=says):
        audit.run("small", grey, tmp_path / "a", **given)
    assert not (tmp_path / "a").exists()


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("command", ["audit", "compare", "plan"])
def test_where_results_cannot_go_is_told_before_anything_is_read(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    for out, says in (
        (tmp_path / "file", "expected a folder for the results, got the file"),
        (tmp_path / "file" / "below", "cannot write to .*/file"),
        (tmp_path / "full", "is not empty; go on with --resume"),
    ):
        with pytest.raises(InputError, match=says):
            RUNS[command](out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full"]


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize(("command", "extra"), [("audit", "jinja2"), ("compare", "jinja2"), ("plan", "plotly")])
def test_an_extra_that_the_page_needs_is_asked_for_first(
    command: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("splitveil.report.templates.find_spec", lambda name: None if name == extra else name)
    with pytest.raises(MissingExtraError, match=extra):
        RUNS[command](tmp_path / "a")


@pytest.mark.usefixtures("idle")
def test_a_comparison_and_a_plan_read_their_attacks_and_metrics_first(grey: str, tmp_path: Path) -> None:
    with pytest.raises(ThreatModelError, match="mle needs"):
        compare.run("small", grey, "relu3", ["noise"], tmp_path / "a", attack=["mle"], knows="black-box", n=20)
    lpips = lpips_spec(tmp_path)
    with pytest.raises(InputError, match="at least 31 pixels"):
        compare.run("small", grey, "relu3", ["noise"], tmp_path / "a", attack=["linear"], n=20, metric=[lpips])
    with pytest.raises(UnknownNameError, match="Did you mean 'linear'"):
        plan.run("small", DATA, tmp_path / "p", attack=["lineer"], n=20)
    assert not (tmp_path / "p").exists()
