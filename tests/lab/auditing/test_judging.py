"""Further metrics and a judge: what they add to a row, and what they leave alone."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor, nn

from splitveil.cli.audit import run as command
from splitveil.cli.cards import show_card
from splitveil.core.errors import InputError, UnknownNameError
from splitveil.core.records import Card, Score
from splitveil.lab.auditing import Audit, Subject, audit, work
from splitveil.lab.auditing.examiners import Measure
from splitveil.lab.auditing.facts import Attacked
from splitveil.lab.auditing.judging import AdaptiveJudge, JudgeExaminer
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.data import Images
from splitveil.lab.images import as_floats
from splitveil.lab.metrics import METRICS
from splitveil.lab.metrics.judge import Judge
from splitveil.lab.models.loader import load_model, save_weights
from splitveil.lab.training import IndexBatches, fit

from .conftest import Trained
from .fakes import Grey

pytestmark = pytest.mark.usefixtures("fakes")

KEYS = [f"{name}@other" for name in ("pa", "pa_normalised", "pa_matching", "pi", "pi_q5", "agreement", "deep")]


class Learning(nn.Module):
    """Cross entropy."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self.net(x), y)


@pytest.fixture(scope="module")
def judge(trained: Trained) -> Judge:
    """Another small net, trained on the same digits from another seed."""
    net = load_model("small", shape=trained.data.shape, classes=10, weights=None, seed=9).model
    x, y = torch.from_numpy(trained.data.train.x).float() / 255, torch.from_numpy(trained.data.train.y)
    fit(Learning(net), IndexBatches(len(x), 32, lambda i, _: (x[i], y[i])), epochs=6, lr=5e-3)
    return Judge(net, "other", "seed 9")


def run(trained: Trained, attacks: Sequence[str], subject: Subject | None = None, **more: Any) -> Audit:
    fixed: dict[str, Any] = {"suite": custom_suite(attacks), "n": 60, "samples": 60}
    return audit(subject or trained.subject("relu3"), trained.data, **(fixed | more))


def test_nothing_is_added_where_nothing_is_asked(trained: Trained) -> None:
    found = run(trained, ["grey"])
    assert all(row.extra == {} for row in found.card.rows)
    assert all(set(scores) == {"mse", "psnr", "ssim"} for scores in found.scores)


def test_further_metrics_are_those_of_the_guesses(trained: Trained) -> None:
    names = ["ms_ssim", "gms", "registered_psnr:shift=1"]
    found = run(trained, ["grey"], metrics=names)
    truth = found.inputs.float() / 255
    for row, scores, guess in zip(found.card.rows, found.scores, found.samples, strict=True):
        assert list(row.extra) == names
        for name in names:
            metric, extra = METRICS.build(name), row.extra[name]
            assert torch.allclose(scores[name], metric(truth, guess.float() / 255), atol=0.05)
            assert extra.mean == pytest.approx(scores[name].mean().item(), rel=1e-5)
            assert extra.worst == pytest.approx(metric.worst(scores[name]), rel=1e-5)
            assert (extra.unit, extra.higher_leaks, extra.n) == (metric.unit, metric.higher_leaks, 60)
            assert extra.interval is not None
            assert extra.interval[0] <= extra.mean <= extra.interval[1]
    assert Card.from_json(found.card.to_json()) == found.card


def test_a_judge_tells_guesses_that_say_something_from_those_that_do_not(trained: Trained, judge: Judge) -> None:
    found = run(trained, ["grey", "linear"], trained.subject("relu1"), judge=judge)
    rows = {r.attack: r for r in found.card.rows}
    assert all(list(r.extra) == KEYS for r in rows.values())
    good, blind = (rows[name].extra for name in ("linear", "grey"))
    assert good["pa@other"].mean > 0.85 > 0.3 > blind["pa@other"].mean
    assert good["pa_normalised@other"].mean > 0.9 > 0.2 > blind["pa_normalised@other"].mean
    assert good["pa_matching@other"].mean > 0.95
    assert blind["pa_matching@other"].mean == pytest.approx(1 / 60)
    assert good["pi@other"].mean < 0.1 < 0.6 < blind["pi@other"].mean
    assert good["agreement@other"].mean > 0.95 > 0.4 > blind["agreement@other"].mean
    assert good["deep@other"].mean < 0.1 * blind["deep@other"].mean
    assert blind["pi@other"].worst is not None
    assert blind["pi@other"].worst <= blind["pi_q5@other"].mean < blind["pi@other"].mean
    assert blind["pa@other"].worst is None
    note = next(n for n in found.card.notes if n.startswith("judge other (seed 9): accuracy "))
    assert "1 in 60" in note


def test_a_judge_that_learns_from_guesses_reads_more_of_them(trained: Trained, judge: Judge) -> None:
    attacks, learns = ["negative", "repeat:attack=grey,k=2"], replace(judge, adaptive=True)
    plain, found = run(trained, attacks, judge=judge), run(trained, attacks, judge=learns)
    own = [f"{name}@adapted other" for name in ("pa", "pa_normalised", "pi", "pi_q5")]
    for before, after in zip(plain.card.rows, found.card.rows, strict=True):
        assert list(after.extra) == [*KEYS, *own]
        assert {k: after.extra[k] for k in KEYS} == before.extra, "the judge that has not learned is left as it was"
    told = next(r for r in found.card.rows if r.attack == "negative").extra
    assert told["pa@adapted other"].mean > told["pa@other"].mean + 0.2
    assert told["pi@adapted other"].mean < told["pi@other"].mean
    assert any(n.startswith("judge adapted other: the same, fine-tuned for each attack") for n in found.card.notes)


def test_without_labels_of_its_own_images_it_cannot_learn(trained: Trained, judge: Judge) -> None:
    x, y = torch.from_numpy(trained.data.test.x[:40]), torch.from_numpy(trained.data.test.y[:40])
    adaptive = AdaptiveJudge(JudgeExaminer(judge, x, y))
    scores = adaptive.scores(x / 255, x[:20] / 255, torch.full((20,), -1), 0)
    assert [m.number(scores, 0) for m in adaptive.measures] == [None] * 4


def test_the_worst_case_carries_the_values_of_the_guesses_it_chose(trained: Trained, judge: Judge) -> None:
    found = run(trained, ["grey", "linear"], judge=judge, metrics=["gms"])
    by = {r.attack: s for r, s in zip(found.card.rows, found.scores, strict=True)}
    worst, singles = by["worst_case:psnr"], [s for name, s in by.items() if ":" not in name]
    chosen = torch.stack([s["psnr"] for s in singles]).argmax(0)
    for name in ("gms", "pi@other", "pa@other"):
        expected = torch.stack([s[name] for s in singles])[chosen, torch.arange(60)]
        assert torch.equal(worst[name].nan_to_num(-1), expected.nan_to_num(-1))
    row = next(r for r in found.card.rows if r.attack == "worst_case:psnr")
    assert row.extra["gms"].mean == pytest.approx(worst["gms"].mean().item(), abs=1e-6)


def test_what_is_asked_for_is_part_of_what_a_unit_is(trained: Trained, judge: Judge, tmp_path: Path) -> None:
    first = run(trained, ["grey", "centroid"], cache=tmp_path)
    again = run(trained, ["grey", "centroid"], cache=tmp_path, metrics=())
    assert Grey.runs == 1
    assert again.card.rows == first.card.rows
    before = set(tmp_path.iterdir())
    with_metric = [run(trained, ["grey", "centroid"], cache=tmp_path, metrics=["gms"]).card for _ in range(2)]
    assert Grey.runs == 2
    assert with_metric[0].rows == with_metric[1].rows, "extra numbers survive being kept"
    assert [r.seconds for r in with_metric[0].inferences] == [r.seconds for r in first.card.inferences]
    added = set(tmp_path.iterdir()) - before
    assert not any("centroid" in p.name or "accuracy" in p.name for p in added), "labels and accuracy are as before"
    run(trained, ["grey"], cache=tmp_path, judge=judge)
    assert Grey.runs == 3
    other = Judge(load_model("small", shape=trained.data.shape, classes=10, weights=None, seed=9).model, "other")
    other.net.load_state_dict(judge.net.state_dict())
    with torch.no_grad():
        next(other.net.parameters()).mul_(1.01)
    run(trained, ["grey"], cache=tmp_path, judge=other)
    assert Grey.runs == 4


def test_what_is_not_asked_for_is_no_fact(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """The facts behind every unit are those that they were before anything could be asked for."""
    seen: list[Attacked] = []

    def noted(*args: Any) -> Attacked:
        seen.append(Attacked(*args))
        return seen[-1]

    monkeypatch.setattr(work, "Attacked", noted)
    run(trained, ["grey"])
    bare = next(f for f in seen if f.attack.name == "grey")
    assert bare.looking is None
    run(trained, ["grey"], metrics=["gms"])
    asked = next(f for f in seen if f.attack.name == "grey" and f.looking)
    assert replace(asked, looking=None).name == bare.name != asked.name


def test_resuming_with_a_metric_more(trained: Trained, tmp_path: Path) -> None:
    run(trained, ["grey"], out=tmp_path / "a")
    card = run(trained, ["grey"], out=tmp_path / "a", resume=True, metrics=["gms"]).card
    assert Grey.runs == 2
    assert all("gms" in r.extra for r in card.rows)


def test_judges_that_are_refused(trained: Trained, judge: Judge, tmp_path: Path) -> None:
    own = load_model("small", shape=trained.data.shape, classes=10, weights=None).model
    own.load_state_dict(trained.weights, strict=False)
    with pytest.raises(InputError, match="expected an independent judge, got small"):
        run(trained, ["grey"], judge=Judge(own, "small"), out=tmp_path / "a")
    protected = trained.protected("relu3", "noise:sigma=0.5", "raw")
    subject = Subject.of_split(protected, model="small", weights="test")
    with pytest.raises(InputError, match="independent"):
        run(trained, ["grey"], subject, judge=Judge(own, "small"))
    raw = load_model("small", shape=trained.data.shape, classes=10, weights=None, seed=3).model
    with torch.no_grad():
        for parameter in raw.parameters():
            parameter.zero_()
    with pytest.raises(InputError, match=r"reads the private images, got blank .*train it"):
        run(trained, ["grey"], judge=Judge(raw, "blank"))
    with pytest.raises(InputError, match=r"cannot take images of \(1, 8, 8\)"):
        run(trained, ["grey"], judge=Judge(nn.Conv2d(3, 4, 3), "wide"))
    with pytest.raises(InputError, match="labels from 0 to 2, got 0 to 9; take a judge of the same classes"):
        run(trained, ["grey"], judge=Judge(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "three"))
    assert not (tmp_path / "a").exists()


def test_metrics_that_are_refused(trained: Trained) -> None:
    with pytest.raises(InputError, match="stands in every row"):
        run(trained, [], metrics=["psnr"])
    with pytest.raises(InputError, match="gms 2 times"):
        run(trained, [], metrics=["gms", "gms"])
    with pytest.raises(UnknownNameError, match="Did you mean 'gms'"):
        run(trained, [], metrics=["gmsd"])
    with pytest.raises(InputError, match="Did you mean 'shift'"):
        run(trained, [], metrics=["registered_psnr:shifts=2"])


def test_images_without_a_value_are_left_out() -> None:
    measure = Measure("pi", "1", higher_leaks=False, of="pi")
    found = measure.number({"pi": torch.tensor([0.2, torch.nan, 0.4])}, 0)
    assert found is not None
    assert found.n == 2
    assert found.mean == pytest.approx(0.3)
    assert measure.number({"pi": torch.tensor([torch.nan])}, 0) is None


def test_the_interval_of_a_quantile() -> None:
    """Of 400 uniform values the 5 % quantile has a standard error of about sqrt(0.05 0.95 / 400) = 0.011."""
    values = torch.from_numpy(np.random.default_rng(0).random(400))
    found = Measure("q", "1", higher_leaks=False, of="pi", tail=False, quantile=True).number({"pi": values}, 0)
    assert isinstance(found, Score)
    assert found.worst is None
    assert found.interval is not None
    low, high = found.interval
    assert low < found.mean < high
    assert 0.02 < high - low < 0.08


def test_the_table_shows_them_only_where_asked(
    trained: Trained, judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    show_card(run(trained, ["grey"]).card)
    assert "further" not in capsys.readouterr().out
    show_card(run(trained, ["grey"], judge=judge, metrics=["registered_psnr"]).card)
    shown = capsys.readouterr().out
    assert "further metrics" in shown
    assert all(key in shown for key in [*KEYS, "registered_psnr", "more leaks more", "less leaks more"])


def test_the_command_takes_metrics_and_a_judge(
    trained: Trained, judge: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, own = str(tmp_path / "judge.safetensors"), str(tmp_path / "own.safetensors")
    save_weights(judge.net, Path(weights))
    save_file({name: tensor.clone() for name, tensor in trained.weights.items()}, own)
    words: dict[str, Any] = {
        "target": "small", "data": "digits?n=200", "at": "relu3", "weights": own, "attack": ["grey"], "n": 25,
        "samples": 0,
    }  # fmt: skip
    with pytest.raises(typer.Exit):  # a grey image lies below the floor
        command(**words, out=tmp_path / "a", metric=["gms"], judge="small", judge_weights=weights, as_json=True)
    card = json.loads(capsys.readouterr().out)
    assert {k for r in card["rows"] for k in r["extra"]} == {"gms", *(k.replace("other", "small") for k in KEYS)}
    assert any(n.startswith("judge small (judge.safetensors sha256:") for n in card["notes"])
    for judge_, file, says in (
        ("small", None, "expected --judge-weights beside --judge"),
        (None, weights, "expected --judge beside --judge-weights"),
        ("small", own, "expected an independent judge"),
    ):
        with pytest.raises(InputError, match=says):
            command(**words, out=tmp_path / "b", judge=judge_, judge_weights=file)
    assert not (tmp_path / "b").exists()


class Darkness:
    """A user's own examiner: how dark a guess is beside its image."""

    def __init__(self, level: float, private: Images) -> None:
        self.level, self.light = level, as_floats(torch.from_numpy(private.x)).mean((1, 2, 3))

    @property
    def measures(self) -> tuple[Measure, ...]:
        return (Measure("darkness", "1", higher_leaks=False, of="darkness"),)

    @property
    def note(self) -> str:
        return f"darkness below {self.level}"

    def scores(self, guess: Tensor) -> dict[str, Tensor]:
        return {"darkness": (self.light - guess.mean((1, 2, 3))).clamp_max(self.level)}


def test_a_users_own_examiner_looks_at_every_guess(trained: Trained, tmp_path: Path) -> None:
    card = run(trained, ["grey"], examiners=[partial(Darkness, 0.5)], cache=tmp_path).card
    assert all(list(r.extra) == ["darkness"] for r in card.rows)
    assert "darkness below 0.5" in card.notes
    again = run(trained, ["grey"], examiners=[partial(Darkness, 0.5)], cache=tmp_path).card
    assert Grey.runs == 1
    assert again.rows == card.rows
    run(trained, ["grey"], examiners=[partial(Darkness, 0.4)], cache=tmp_path)
    assert Grey.runs == 2, "its attributes decide what it says"
