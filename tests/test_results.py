"""docs/results: a page, its archive and its pictures; every archive reads, and every page is what its archive says."""

import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
from benchmarks.archive import Archive
from benchmarks.bound import Bound
from benchmarks.defenses import cards_of
from benchmarks.over_seeds import half_width, plus_minus
from benchmarks.page import Page
from benchmarks.plan_search import Searched
from benchmarks.plan_zone import Found
from benchmarks.scaling import Overhead, Run
from benchmarks.serving_speed.records import ServingRun
from benchmarks.training_curve import Curve
from benchmarks.training_steps import Steps

from splitveil.core.errors import InputError
from splitveil.core.records import Card, Comparison, Criterion, Document
from splitveil.lab.auditing.summary import estimate
from tests.faults.finding import Findings

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
ARCHIVES = sorted(RESULTS.glob("*.jsonl"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FORMS: dict[str, type[Document]] = {
    form.kind: form
    for form in (Bound, Card, Comparison, Criterion, Curve, Findings, Found, Overhead, Run, Searched, ServingRun, Steps)
}
COMMANDS = {
    "audit-resnet20": ["first_audit", "--page", "--out"],
    "bound": ["bound", "--page", "--out"],
    "criterion": ["criterion", "--page", "--out"],
    "defenses-cifar10": ["defenses", "--page", "--out"],
    "he2019": ["he2019", "--page", "--out"],
    "plan-cifar10": ["plan_zone", "--page", "--out"],
    "plan-search": ["plan_search", "--page", "--results"],
    "scaling": ["scaling", "--page", "--out"],
    "serving": ["serving", "page"],
    "serving-faults": ["serving_faults", "--page", "--out"],
    "shifted-aux": ["shifted_aux", "--page", "--out"],
    "training-speed": ["training_speed", "--page", "--out"],
}
"""What makes each page that has an archive."""


def test_a_folder_of_pages_with_one_archive_each_and_pictures() -> None:
    for path in RESULTS.iterdir():
        page = path.stem if path.suffix != ".svg" else path.stem.rpartition("-")[0]
        assert path.suffix in (".md", ".jsonl", ".svg"), path
        assert (RESULTS / f"{page}.md").exists(), path
    assert {p.stem for p in ARCHIVES} == set(COMMANDS)


@pytest.mark.parametrize("path", ARCHIVES, ids=lambda p: p.name)
def test_every_record_reads(path: Path) -> None:
    archive = Archive(path)
    lines = archive.lines()
    assert lines
    kinds = dict.fromkeys(kind for kind, _ in lines)
    assert sum(len(archive.all(FORMS[kind])) for kind in kinds) == len(lines)


def test_comparisons_find_their_cards_and_no_card_is_nobodys() -> None:
    archive = Archive(RESULTS / "defenses-cifar10.jsonl")
    named = {card for found in archive.all(Comparison).values() for card in cards_of(found)}
    assert set(archive.all(Card)) == named


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_point_to_files(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", sorted(RESULTS.glob("*.md")), ids=lambda p: p.name)
def test_a_page_links_to_its_archive(page: Path) -> None:
    assert (f"]({page.stem}.jsonl)" in page.read_text()) == (page.stem in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_and_its_pictures_are_what_the_archive_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Path(shutil.copy(RESULTS / f"{name}.jsonl", tmp_path))
    command, *options = COMMANDS[name]
    where = archive if options == ["page"] else tmp_path
    monkeypatch.setattr(sys, "argv", [command, *options, str(where)])
    monkeypatch.delitem(sys.modules, f"benchmarks.{command}", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"benchmarks.{command}", run_name="__main__")
    assert not ended.value.code
    committed = {p.name: p.read_bytes() for p in (RESULTS / f"{name}.md", *RESULTS.glob(f"{name}-*.svg"))}
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p != archive} == committed
    assert archive.read_bytes() == (RESULTS / archive.name).read_bytes()


def test_a_page_without_records_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a card same\.\.\. in .*page\.jsonl, got none; run this without"):
        Page("page", tmp_path).records(Card, "same")


def test_options_that_only_measuring_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bound", "--data", "digits"])
    monkeypatch.delitem(sys.modules, "benchmarks.bound")
    with pytest.raises(SystemExit):
        runpy.run_module("benchmarks.bound", run_name="__main__")
    assert "--weights is missing; give it, or --page" in capsys.readouterr().err


def test_a_number_over_seeds() -> None:
    values = [1.0, 2.0, 4.0]
    low, high = estimate(values).interval or (0, 0)
    assert half_width(values) == pytest.approx((high - low) / 2)
    assert plus_minus([*values, None]) == f"2.33 ± {(high - low) / 2:.2f}"
    assert plus_minus([1.0], "{:.1f}", (0.5, 1.5)) == "1.0 [0.5, 1.5]"
    assert plus_minus([1.0]) == "1.00"
    assert plus_minus([None]) == plus_minus([]) != ""
    assert half_width([1.0]) is half_width([]) is None
