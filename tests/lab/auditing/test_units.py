"""What an audit keeps, finds again and leaves alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from splitveil.core.errors import InputError
from splitveil.core.records import Card, Place
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.rows import scored_row
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.auditing.units import Unit, most_exposed
from splitveil.lab.auditing.worst import best_of, strongest
from splitveil.lab.data import Dataset

from .conftest import Trained
from .fakes import Grey

pytestmark = pytest.mark.usefixtures("fakes")


def run(trained: Trained, attacks: Sequence[str], subject: Subject | None = None, **more: Any) -> Card:
    fixed: dict[str, Any] = {"suite": custom_suite(attacks), "n": 30, "samples": 3}
    return audit(subject or trained.subject("relu3"), more.pop("data", trained.data), **(fixed | more)).card


def timeless(card: Card) -> Card:
    return card.model_copy(update={"seconds": 0.0})


def test_adding_an_attack_runs_only_that_one(trained: Trained, tmp_path: Path) -> None:
    run(trained, ["grey"], out=tmp_path / "a")
    assert Grey.runs == 1
    card = run(trained, ["grey", "grey:level=0.4"], out=tmp_path / "a", resume=True)
    assert Grey.runs == 2
    assert [r.options for r in card.rows if r.attack == "grey"] == ["level=0.5", "level=0.4"]
    fewer = run(trained, ["grey:level=0.4"], out=tmp_path / "a", resume=True)
    assert Grey.runs == 2
    whole = run(trained, ["grey:level=0.4"])
    assert [r.psnr for r in fewer.rows] == [r.psnr for r in whole.rows]


def test_features_are_not_computed_where_everything_is_there(trained: Trained, tmp_path: Path) -> None:
    subject, seen = trained.subject("relu1", "relu3"), list[int]()
    first = run(trained, ["grey"], subject, out=tmp_path / "a")
    subject.tap.register_forward_hook(lambda m, args, out: seen.append(len(args[0])))
    again = run(trained, ["grey"], subject, out=tmp_path / "a", resume=True)
    assert not seen
    assert timeless(again) == timeless(first)
    (tmp_path / "a" / "units" / _unit(tmp_path / "a", "relu3", "grey")).unlink()
    run(trained, ["grey"], subject, out=tmp_path / "a", resume=True)
    assert seen
    assert Grey.runs == 3


def test_a_cache_serves_other_folders(trained: Trained, tmp_path: Path) -> None:
    run(trained, ["grey"], out=tmp_path / "a", cache=tmp_path / "c")
    run(trained, ["grey"], out=tmp_path / "b", cache=tmp_path / "c")
    assert Grey.runs == 1
    assert not list((tmp_path / "a").rglob("*grey*"))


CHANGES: list[dict[str, Any]] = [{"seed": 1}, {"n": 31}, {"samples": 2}, {"aux_n": 20}]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_another_audit_shares_nothing(trained: Trained, change: dict[str, Any], tmp_path: Path) -> None:
    run(trained, ["grey"], cache=tmp_path)
    run(trained, ["grey"], cache=tmp_path, **change)
    assert Grey.runs == 2


def test_other_weights_share_nothing(trained: Trained, tmp_path: Path) -> None:
    run(trained, ["grey"], cache=tmp_path)
    subject = trained.subject("relu3")
    with torch.no_grad():
        next(subject.configurations[0].split.cloud.parameters()).add_(1e-3)
    run(trained, ["grey"], subject, cache=tmp_path)
    assert Grey.runs == 2


def test_other_labels_share_nothing(trained: Trained, tmp_path: Path) -> None:
    run(trained, ["grey"], cache=tmp_path)
    test = trained.data.test
    other = type(test)(test.x, (test.y + 1) % 10)
    run(trained, ["grey"], cache=tmp_path, data=Dataset("digits", trained.data.train, other, trained.data.classes))
    assert Grey.runs == 2


@pytest.mark.parametrize("how", ["cut short", "one byte", "empty"])
def test_a_damaged_unit_is_one_clear_sentence(trained: Trained, how: str, tmp_path: Path) -> None:
    run(trained, ["grey"], out=tmp_path / "a")
    path = tmp_path / "a" / "units" / _unit(tmp_path / "a", "relu3", "grey")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    damaged = {"cut short": content[: len(content) // 2], "one byte": content, "empty": bytearray()}
    path.write_bytes(damaged[how])
    with pytest.raises(InputError, match=r"grey.*is damaged; delete it and run again with --resume"):
        run(trained, ["grey"], out=tmp_path / "a", resume=True)
    path.unlink()
    run(trained, ["grey"], out=tmp_path / "a", resume=True)


def test_a_damaged_mark_is_one_clear_sentence(trained: Trained, tmp_path: Path) -> None:
    run(trained, ["grey"], out=tmp_path / "a")
    (tmp_path / "a" / "run.json").write_text("[")
    with pytest.raises(InputError, match=r"run.json is damaged"):
        run(trained, ["grey"], out=tmp_path / "a", resume=True)


def unit(attack: str, psnr: Sequence[float], ssim: Sequence[float]) -> Unit:
    """Its guess for image i is a picture of the attack's first letter."""
    p, s = torch.tensor(psnr).float(), torch.tensor(ssim)
    scores = {"psnr": p, "ssim": s, "mse": 10 ** (-p / 10)}
    row = scored_row(
        scores, 0, place=Place("c", "none", "raw"), attack=attack, needs=["AUX"], seconds=1.0, options="k=1"
    )
    index = most_exposed(scores)
    letter = torch.full((len(p), 1, 2, 2), ord(attack[0]), dtype=torch.uint8)
    return Unit(row, scores, letter[:2], index, letter[index])


def test_the_worst_case_keeps_the_pictures_of_whoever_leaks_most() -> None:
    a = unit("a", [30, 5, 20, 20, 9, 1, 8, 7], [0.1] * 8)
    b = unit("b", [10, 6, 20, 21, 9, 40, 8, 7], [0.2] * 8)
    by_psnr, by_ssim = best_of([a, b], "psnr", 0), best_of([a, b], "ssim", 0)
    assert by_psnr.worst_index.tolist() == [5, 0, 3, 2, 4]
    assert "".join(chr(int(g.max())) for g in by_psnr.worst) == "babaa"
    assert by_psnr.row.psnr_interval is not None
    assert torch.equal(by_ssim.scores["psnr"], b.scores["psnr"]), "all numbers are of the attack that was chosen"
    assert len(by_ssim.worst_index) == len(by_ssim.worst) == 0


def test_of_a_worst_case_attacks_and_floors_are_told_apart_and_a_floor_exposes_nobody() -> None:
    near = unit("nearest", [50, 5, 6, 7, 5, 5, 5, 5], [0.9] + [0.1] * 7)
    a = unit("a", [20, 21, 22, 9, 9, 9, 9, 9], [0.5] * 8)
    worst = best_of([near, a], "psnr", 0)
    assert worst.scores["psnr"].tolist() == [50, 21, 22, 9, 9, 9, 9, 9]
    assert worst.row.psnr_worst5 == 50
    told = worst.row.envelope
    assert (told["attacks"].worst, told["floors"].worst) == (22, 50)
    assert told["attacks"].mean == pytest.approx(108 / 8)
    assert told["attacks"].interval is not None
    assert [why.partition(":")[0] for why in worst.row.unreliable] == ["floor in the tail"]
    assert worst.worst_index.tolist() == [2, 1, 0, 3, 4]
    assert "".join(chr(int(g.max())) for g in worst.worst) == "aaaaa"
    assert near.row.envelope == {}
    alone = best_of([near], "psnr", 0)
    assert len(alone.worst_index) == 0
    assert list(alone.row.envelope) == ["floors"]


def test_the_strongest_single_attack_is_named_by_metric() -> None:
    a, b = unit("a", [30, 5], [0.1, 0.1]).row, unit("b", [17, 16], [0.2, 0.3]).row
    assert strongest([a, b]) == {"mse": "b", "psnr": "a", "ssim": "b"}
    other = b.model_copy(update={"attack": "a", "options": "k=2"})
    assert strongest([a, other]) == {"mse": "a:k=2", "psnr": "a:k=1", "ssim": "a:k=2"}


def _unit(folder: Path, cut: str, attack: str) -> str:
    (name,) = (p.name for p in (folder / "units").glob(f"{cut}*{attack}*.safetensors"))
    return name
