"""`report` on whatever SplitVeil wrote."""

import shutil
from pathlib import Path

import pytest

from splitveil.core.errors import InputError
from splitveil.core.records import Comparison, Criterion, Plan
from splitveil.report import render_comparison, render_criterion, render_findings, render_plan

from .conftest import MakeAudit
from .plans import make_plan
from .test_comparison import comparison as comparison  # a fixture
from .test_criterion import criterion


def page_of(record: Plan | Comparison | Criterion, out: Path) -> Path:
    match record:
        case Plan():
            return render_plan(record, out)
        case Comparison():
            return render_comparison(record, out)
    return render_criterion(record, out)


def title(page: Path) -> str:
    text = page.read_text()
    return text[text.index("<title>") + 7 : text.index("</title>")]


def test_an_audit_and_a_folder_of_audits(make_audit: MakeAudit, tmp_path: Path) -> None:
    one = make_audit("a", samples=0)
    out = tmp_path / "page.html"
    assert "Leakage report" in title(render_findings([one], out))
    assert render_findings([one / "card.json"], out).read_text() == render_findings([one], out).read_text()
    (tmp_path / "seeds").mkdir()
    for k in (0, 1, 10):
        shutil.copytree(one, tmp_path / "seeds" / f"seed-{k}")
    text = render_findings([tmp_path / "seeds"], out).read_text()
    places = [text.index(f'<h2 class="name">seed-{k}<') for k in (0, 1, 10)]
    assert places == sorted(places)


def test_a_plan_a_comparison_and_a_criterion(comparison: Comparison, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    records: list[Plan | Comparison | Criterion] = [make_plan(), comparison, criterion(4)]
    for record in records:
        name = record.kind
        (tmp_path / name).mkdir()
        record.save(tmp_path / name / f"{name}.json")
        # Audits beneath it are parts of it, not what it is about.
        (tmp_path / name / "audits").mkdir()
        assert render_findings([tmp_path / name], out).read_text() == page_of(record, tmp_path / "own.html").read_text()


def test_a_bundle_with_a_card_and_one_without(make_audit: MakeAudit, tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="bundle without a leakage card; run `splitveil audit"):
        render_findings([folder], tmp_path / "page.html")
    shutil.copy(make_audit("a") / "card.json", folder / "card.json")
    text = render_findings([folder], tmp_path / "page.html").read_text()
    assert "A card alone holds no images" in text
    assert "How the images differ" not in text
    assert "Strongest attack and worst case" in text
    assert "How the images differ" in render_findings([tmp_path / "a"], tmp_path / "page.html").read_text()


def test_what_holds_nothing_is_told_what_would(make_audit: MakeAudit, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds nothing to report; .*comparison\.json.*plan\.json.*bundle"):
        render_findings([tmp_path / "empty"], out)
    with pytest.raises(InputError, match="there is no folder"):
        render_findings([tmp_path / "missing"], out)
    (tmp_path / "empty" / "run.json").write_text("{}")
    with pytest.raises(InputError, match="not finished; go on with it by --resume"):
        render_findings([tmp_path / "empty"], out)
    (tmp_path / "p").mkdir()
    make_plan().save(tmp_path / "p" / "plan.json")
    with pytest.raises(InputError, match=r"plan\.json among others"):
        render_findings([make_audit("a"), tmp_path / "p"], out)
    assert not out.exists()
