import gc
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from splitveil.core.errors import InputError, OverlapError, ThreatModelError
from splitveil.core.records import FLOORS, Accuracy, Card
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack
from splitveil.lab.attacks.view import PRESETS, Knows, View
from splitveil.lab.auditing import Subject, audit, summarise
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.data import Dataset
from splitveil.lab.metrics import METRICS

from .conftest import QUICK, Trained

KEYS = {
    "cut", "defense", "codec", "attack", "needs", "n", "mse", "psnr", "ssim", "psnr_worst5", "ssim_worst5", "seconds",
    "unreliable", "mse_interval", "psnr_interval", "ssim_interval", "evidence", "options",
    "envelope",
}  # fmt: skip
TOP = {
    "model", "weights", "data", "task_accuracy", "threat_model", "suite", "seed", "hardware", "seconds", "rows",
    "inferences", "strongest", "notes",
}  # fmt: skip


def same(a: Card, b: Card) -> bool:
    """Equal but for the time it took."""

    def timeless(card: Card) -> Card:
        rows = [r.model_copy(update={"seconds": 0.0}) for r in card.rows]
        labels = [r.model_copy(update={"seconds": 0.0}) for r in card.inferences]
        return card.model_copy(update={"seconds": 0.0, "rows": rows, "inferences": labels})

    return timeless(a) == timeless(b)


def test_floors_first_worst_case_last_and_every_key(trained: Trained, tmp_path: Path) -> None:
    found = audit(trained.subject("relu3", "relu1"), trained.data, suite=QUICK, n=40, out=tmp_path / "a")
    names = ["mean", "class_mean", "nearest", "decoder", "mle", "worst_case:psnr", "worst_case:ssim"]
    assert [(r.cut, r.attack) for r in found.card.rows] == [(c, a) for c in ("relu1", "relu3") for a in names]
    written = json.loads((tmp_path / "a" / "card.json").read_text())
    assert set(written) >= TOP
    assert all(set(row) >= KEYS for row in written["rows"])
    assert Card.load(tmp_path / "a" / "card.json") == found.card
    assert found.card.task_accuracy > 0.8


def test_rows_are_the_metrics_of_the_guesses(trained: Trained) -> None:
    found = audit(trained.subject("relu1"), trained.data, suite=QUICK, n=40, samples=40)
    truth = found.inputs.float() / 255
    assert torch.equal(found.inputs, torch.from_numpy(trained.data.test.x)[found.index])
    for row, scores, guess in zip(found.card.rows, found.scores, found.samples, strict=True):
        psnr = METRICS.build("psnr")(truth, guess.float() / 255)
        close = scores["psnr"] < 38  # guesses are kept in 8 bit
        assert torch.allclose(scores["psnr"][close], psnr[close], atol=0.3)
        assert row.psnr == pytest.approx(scores["psnr"].mean().item())
        assert row.psnr_worst5 == pytest.approx(scores["psnr"].topk(2).values.mean().item())
        assert row.n == 40


def test_the_worst_case_is_nowhere_weaker_than_any_attack(trained: Trained) -> None:
    found = audit(trained.subject("relu3"), trained.data, suite=QUICK, n=40)
    for metric in ("psnr", "ssim"):
        worst = next(
            s for r, s in zip(found.card.rows, found.scores, strict=True) if r.attack == f"worst_case:{metric}"
        )
        singles = [s[metric] for r, s in zip(found.card.rows, found.scores, strict=True) if ":" not in r.attack]
        assert torch.equal(worst[metric], torch.stack(singles).max(0).values)


def test_all_numbers_of_a_worst_case_come_from_one_attack_an_image(trained: Trained) -> None:
    found = audit(trained.subject("relu3"), trained.data, suite=QUICK, n=40)
    by = {r.attack: s for r, s in zip(found.card.rows, found.scores, strict=True)}
    singles = [s for name, s in by.items() if ":" not in name]
    worst = by["worst_case:ssim"]
    for i in range(40):
        assert any(all(s[m][i] == worst[m][i] for m in s) for s in singles)


def test_one_forward_pass_serves_all_cuts(trained: Trained) -> None:
    subject, seen = trained.subject("relu1", "relu2", "relu3"), list[int]()
    subject.tap.register_forward_hook(lambda m, args, out: seen.append(len(args[0])))
    audit(subject, trained.data, suite=custom_suite([]), n=40)
    assert sum(seen) == len(trained.data.test) + max(0, 500 - (len(trained.data.test) - 40))


@pytest.mark.usefixtures("fakes")
def test_little_memory_takes_more_passes_and_changes_no_number(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(budget: int) -> tuple[Card, int]:
        subject, seen = trained.subject("relu1", "relu2", "relu3"), list[int]()
        subject.tap.register_forward_hook(lambda m, args, out: seen.append(len(args[0])))
        monkeypatch.setattr("splitveil.lab.auditing.run.memory_budget", lambda: budget)
        return audit(subject, trained.data, suite=custom_suite(["literal", "centroid"]), n=40).card, sum(seen)

    (whole, once), (parted, more) = run(2**40), run(540 * 17_000)
    assert more == 2 * once
    assert same(whole, parted)
    small, _ = run(200 * 12_288)
    assert small.aux_n == 160
    assert any("memory" in note for note in small.notes)


def tensors_reachable_from(root: object) -> Iterator[Tensor]:
    """Every tensor and array that can be reached by following references, closures included."""
    seen, waiting = set[int](), [root]
    skipped = (type, type(gc), type(len))
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, skipped):
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, np.ndarray):
            yield torch.from_numpy(np.array(item)) if item.dtype.kind in "iuf" else torch.empty(0)
        if callable(item) and hasattr(item, "__closure__"):
            waiting.extend(c.cell_contents for c in item.__closure__ or ())
            waiting.extend(getattr(item, "__defaults__", None) or ())
        else:
            waiting.extend(r for r in gc.get_referents(item) if not isinstance(r, dict) or "__builtins__" not in r)


def holds(found: Iterable[Tensor], secret: Tensor) -> bool:
    """Whether any tensor contains one of the images `secret`: (N, C, H, W) uint8, as bytes, [0, 1] or 0 to 255."""
    wanted = {x.tobytes() for x in secret.numpy()}
    size = secret[0].numel()
    for tensor in found:
        flat = tensor.detach().cpu()
        if flat.numel() == 0 or flat.numel() % size or flat.is_complex() or flat.dtype == torch.bool:
            continue
        rows = flat.reshape(-1, size).double()
        for scale in (1, 255):
            scaled = rows * scale
            if ((scaled - scaled.round()).abs() < 1e-3).all(1).any() and scaled.min() >= -1 and scaled.max() <= 256:
                as_bytes = scaled.round().clamp(0, 255).to(torch.uint8).reshape(-1, *secret.shape[1:])
                if any(x.tobytes() in wanted for x in as_bytes.numpy()):
                    return True
    return False


class Spy(Attack):
    """Keeps the views that it is shown."""

    name = "spy"
    needs = Knows.NOTHING
    views: list[View] = []  # noqa: RUF012

    def run(self, view: View) -> Tensor:
        Spy.views.append(view)
        return torch.zeros(len(view.z), *view.image_shape)


class Other(Spy):
    """Another one."""

    name = "other"


@pytest.mark.parametrize("defense", ["none", "noise:sigma=0.5"])
def test_a_private_image_cannot_be_reached_from_a_view(
    trained: Trained, defense: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spy, "views", [])
    monkeypatch.setitem(ATTACKS._table, "spy", f"{__name__}:Spy")
    subject = Subject.of_split(trained.protected("relu3", defense, "uniform"), model="small", weights="test")
    found = audit(subject, trained.data, suite=custom_suite(["spy"]), n=40, samples=40)
    assert len(Spy.views) == 4, "two configurations, each tried at another scale of the features as well"
    for view in Spy.views:
        reachable = list(tensors_reachable_from(view))
        assert any(t.data_ptr() == view.z.data_ptr() for t in reachable)
        assert holds(reachable, view.aux.x[:5]), "the search must find what is there"
        assert not holds(reachable, found.inputs)


def test_a_defended_split_stands_beside_its_halves_with_nothing_between(trained: Trained) -> None:
    subject = Subject.of_split(
        trained.protected("relu3", "noise:sigma=1.0", "uniform:bits=4"), model="small", weights="test"
    )
    found = audit(subject, trained.data, suite=QUICK, n=40)
    pairs = list(dict.fromkeys((r.defense, r.codec) for r in found.card.rows))
    assert pairs == [("none", "raw"), ("noise:sigma=1.0,clip=1.0", "uniform:bits=4")]
    assert len(set(found.card.accuracies.values())) == 2
    assert found.card.task_accuracy == found.card.accuracies["relu3 | noise:sigma=1.0,clip=1.0 | uniform:bits=4"]
    (note,) = found.card.notes
    assert "(defense none) are as the defence left them, not undefended; splitveil compare audits" in note


@pytest.mark.parametrize(
    ("defense", "codec", "rows"),
    [
        ("none", "raw", [("none", "raw")]),
        ("none", "uniform:bits=4", [("none", "raw"), ("none", "uniform:bits=4")]),
        ("nopeek", "raw", [("nopeek", "raw")]),
        ("nopeek", "uniform:bits=4", [("none", "raw"), ("nopeek", "uniform:bits=4")]),
        ("top_k", "raw", [("none", "raw"), ("top_k", "raw")]),
        ("chain:of=[siftfunnel + distillation]", "raw", [("chain", "raw")]),
        ("veil:sigma=0", "raw", [("veil", "raw")]),
        ("veil", "raw", [("none", "raw"), ("veil", "raw")]),
        ("pripro:layers=2", "raw", [("none", "raw"), ("pripro", "raw")]),
    ],
)
def test_halves_with_nothing_between_are_audited_where_they_differ(
    trained: Trained, defense: str, codec: str, rows: list[tuple[str, str]]
) -> None:
    protected = trained.protected("relu2", defense, codec)
    subject = Subject.of_split(protected, model="small", weights="test")
    assert [(c.defense.partition(":")[0], c.codec) for c in subject.configurations] == rows
    assert len(subject.notes) == (defense != "none") + protected.untrained
    told = [note for note in subject.notes if "never trained" not in note]
    assert [note for note in told if "no row without it" in note] == told * (len(rows) == 1)


class KilledError(Exception):
    """The machine went away."""


@pytest.mark.parametrize("after", [pytest.param(0, marks=pytest.mark.long), 4, pytest.param(7, marks=pytest.mark.long)])
def test_a_killed_audit_resumes_to_the_same_result(
    trained: Trained, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(folder: Path, *, resume: bool = False) -> Card:
        subject = Subject.of_split(trained.protected("relu3", "noise", "uniform"), model="small", weights="test")
        return audit(subject, trained.data, suite=QUICK, n=30, out=folder, resume=resume).card

    whole = run(tmp_path / "whole")
    calls, original = 0, Attack.__call__

    def dying(self: Attack, view: View) -> object:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KilledError
        return original(self, view)

    with monkeypatch.context() as patched:
        patched.setattr(Attack, "__call__", dying)
        with pytest.raises(KilledError):
            run(tmp_path / "killed")
    assert not (tmp_path / "killed" / "card.json").exists()
    assert same(run(tmp_path / "killed", resume=True), whole)
    files = [p.name for p in (tmp_path / "killed").iterdir()]
    assert sorted(files) == ["card.json", "run.json", "samples.safetensors", "scores.safetensors", "units"]


def test_resuming_another_audit_is_refused(trained: Trained, tmp_path: Path) -> None:
    audit(trained.subject("relu3"), trained.data, suite=custom_suite([]), n=30, out=tmp_path / "a")
    with pytest.raises(InputError, match="not empty; go on with --resume"):
        audit(trained.subject("relu3"), trained.data, suite=custom_suite([]), n=30, out=tmp_path / "a")
    with pytest.raises(InputError, match=r"holds another audit .*differs in data, n\)"):
        audit(trained.subject("relu3"), trained.data, suite=custom_suite([]), n=31, out=tmp_path / "a", resume=True)


def test_attacks_beyond_the_adversary_are_left_out_and_noted(trained: Trained) -> None:
    found = audit(trained.subject("relu3"), trained.data, suite=QUICK, n=30, knows=PRESETS["query-free"])
    assert {r.attack for r in found.card.rows} == {"mean", "class_mean", "worst_case:psnr", "worst_case:ssim"}
    assert any("mle" in note and "WEIGHTS" in note for note in found.card.notes)
    assert "query-free" in found.card.threat_model
    with pytest.raises(ThreatModelError, match="grant more"):
        audit(trained.subject("relu3"), trained.data, suite=QUICK, n=30, knows=Knows.NOTHING)


def test_aux_of_another_set(trained: Trained, foreign: Dataset) -> None:
    found = audit(trained.subject("relu3"), trained.data, aux=foreign, suite=custom_suite([]), n=30)
    assert found.card.aux_n == 80
    by = {r.attack: s for r, s in zip(found.card.rows, found.scores, strict=True)}
    assert not torch.equal(by["class_mean"]["mse"], by["mean"]["mse"]), "the same ten classes"
    others = Dataset("others", foreign.train, foreign.test, tuple("abcdefghij"))
    found = audit(trained.subject("relu3"), trained.data, aux=others, suite=custom_suite([]), n=30)
    by = {r.attack: s for r, s in zip(found.card.rows, found.scores, strict=True)}
    assert torch.allclose(by["class_mean"]["mse"], by["mean"]["mse"]), "labels of other classes are not used"
    with pytest.raises(OverlapError):
        audit(trained.subject("relu3"), trained.data, aux=trained.data, suite=custom_suite([]), n=30)


def test_the_images_that_leak_most_are_kept(trained: Trained, tmp_path: Path) -> None:
    found = audit(trained.subject("relu3"), trained.data, suite=QUICK, n=30, samples=2, out=tmp_path)
    kept = load_file(tmp_path / "samples.safetensors")
    for i, (row, scores) in enumerate(zip(found.card.rows, found.scores, strict=True)):
        if row.attack == "worst_case:ssim":
            assert f"row{i:03d}.worst" not in kept
            continue
        inputs, guesses = kept[f"row{i:03d}.worst_input"], kept[f"row{i:03d}.worst"]
        places = kept[f"row{i:03d}.worst_index"].numpy()
        assert torch.equal(inputs, torch.from_numpy(trained.data.test.x[places]))
        mse = METRICS.build("mse")(inputs / 255, guesses / 255)
        wanted = scores["mse"]
        if row.attack == "worst_case:psnr":
            both = zip(found.card.rows, found.scores, strict=True)
            wanted = torch.stack([s["mse"] for r, s in both if r.attack in ("decoder", "mle")]).amin(0)
        assert torch.allclose(mse.sqrt(), wanted.sort().values[:5].sqrt(), atol=0.004), row.attack


def test_intervals_strongest_and_evidence_stand_in_the_card(trained: Trained) -> None:
    card = audit(trained.subject("relu3"), trained.data, suite=QUICK, n=40).card
    for row in card.rows:
        assert row.psnr_interval is not None
        assert row.psnr_interval[0] <= row.psnr <= row.psnr_interval[1]
    by = {r.attack: r for r in card.rows if ":" not in r.attack}
    (best,) = card.strongest.values()
    assert by[best["psnr"]].psnr == max(r.psnr for r in by.values())
    assert by[best["mse"]].mse == min(r.mse for r in by.values())
    assert by["mle"].evidence["draws"] == 1


def test_all_attacks_see_the_same_crossing(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spy, "views", [])
    monkeypatch.setattr(Spy, "scale_free", True)
    monkeypatch.setitem(ATTACKS._table, "spy", f"{__name__}:Spy")
    monkeypatch.setitem(ATTACKS._table, "other", f"{__name__}:Other")
    subject = Subject.of_split(trained.protected("relu3", "noise", "raw"), model="small", weights="test")
    audit(subject, trained.data, suite=custom_suite(["spy", "other"]), n=30)
    _, _, first, second = Spy.views
    assert torch.equal(first.z, second.z)
    assert first.seed != second.seed


def test_no_samples_keeps_no_picture(trained: Trained, tmp_path: Path) -> None:
    audit(trained.subject("relu3"), trained.data, suite=QUICK, n=30, samples=0, out=tmp_path / "a")
    assert not (tmp_path / "a" / "samples.safetensors").exists()
    kept = [p for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in kept) < 64_000


@pytest.mark.long
def test_scale_of_the_features_moves_no_score(trained: Trained) -> None:
    def scaled(factor: float) -> Card:
        split = trained.traced.split("relu3")

        class Times(torch.nn.Module):
            def __init__(self, inner: torch.nn.Module, before: float, after: float) -> None:
                super().__init__()
                self.inner, self.before, self.after = inner, before, after

            def forward(self, x: Tensor) -> Tensor:
                out: Tensor = self.inner(x * self.before) * self.after
                return out

        split.edge, split.cloud = Times(split.edge, 1, factor), Times(split.cloud, 1 / factor, 1)
        from splitveil.lab.defenses import DEFENSES
        from splitveil.lab.protection import protect
        from splitveil.wire.codecs import CODECS

        protected, _ = protect(split, DEFENSES.build("noise"), CODECS.build("uniform"), trained.data)
        subject = Subject.of_split(protected, model="small", weights="test")
        # Fewer steps than it takes to settle would turn rounding into decibels.
        suite = custom_suite(["decoder:size=tiny,epochs=2,steps=20", "mle:steps=40"])
        return audit(subject, trained.data, suite=suite, n=40).card

    for one, ten in zip(scaled(1).rows, scaled(10).rows, strict=True):
        assert one.psnr == pytest.approx(ten.psnr, abs=0.25), one.attack
        assert one.ssim == pytest.approx(ten.ssim, abs=0.03), one.attack


@pytest.mark.long
def test_accuracies_have_intervals_and_an_untrained_defence_is_doubted(trained: Trained) -> None:
    def card(epochs: int | None) -> Card:
        protected = trained.protected("relu3", "label_smoothing + noise:sigma=0.1".join(("chain:of=[", "]")), "raw")
        assert protected.epochs == 0
        protected.epochs = epochs
        subject = Subject.of_split(protected, model="small", weights="test")
        return audit(subject, trained.data, suite=custom_suite(["linear"]), n=30).card

    never, once, unknown = card(0), card(1), card(None)
    assert any(note.startswith("the defence was never trained") for note in never.notes)
    for row in never.rows:
        doubted = any(why.startswith("untrained defence: chain") for why in row.unreliable)
        assert doubted == (row.defense != "none" and row.attack not in FLOORS), row.attack
    assert never.unreliable
    for trained_or_unknown in (once, unknown):
        assert not any("untrained" in why for why in (*trained_or_unknown.unreliable, *trained_or_unknown.notes))
    assert never.tested.keys() == never.accuracies.keys()
    for label, tested in never.tested.items():
        assert tested == Accuracy.of(round(200 * never.accuracies[label]), 200)
    assert never.task is not None
    assert never.task.share == never.task_accuracy
    told = never.to_json()
    assert Card.from_json(told) == never
    summary = summarise([once, once.model_copy(update={"seed": 1})])
    assert summary.tested == once.tested, "seeds add no test image"


def test_a_clip_is_made_of_the_private_images_and_every_frame_crosses_by_itself(trained: Trained) -> None:
    protected = trained.protected("relu1", "noise:sigma=1.0", "raw")
    subject = Subject.of_split(protected, model="small", weights="test")
    suite = custom_suite(["clip:attack=nearest,frames=3,shift=1"])
    first, again = (audit(subject, trained.data, suite=suite, n=20, aux_n=60, samples=0).card for _ in range(2))
    assert same(first, again)
    assert [r.evidence["crossings"] for r in first.rows if r.attack == "clip"] == [3, 3]
