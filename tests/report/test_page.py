"""The page as a browser gets it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from splitveil.core.errors import InputError
from splitveil.core.records import CHECKS, Card
from splitveil.report import render
from splitveil.report.selfchecks import FIRST

from .conftest import BOTH, MakeAudit, label_row
from .tags import written

HOSTILE = "<script>alert('x')</script>\" onload=\"y"


@pytest.mark.parametrize("several", [False, True])
def test_page_asks_nothing_of_the_network_and_is_well_formed(
    several: bool, make_audit: MakeAudit, tmp_path: Path
) -> None:
    folders = [make_audit("a", configs=BOTH), make_audit("b")][: 2 if several else 1]
    html, tags = written(tmp_path, *folders)
    assert tags.crossed == []
    assert tags.open == []
    assert (
        "meta",
        "content",
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'",
    ) in tags.attributes
    assert not re.search(r"https?:|@import|url\(|//[a-z]", re.sub(r"base64,[^\"]*", "", html))
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(tags.count)
    assert not {"src", "srcset", "data", "xlink:href"} & {name for _, name, _ in tags.attributes}
    assert {uri[:22] for uri in tags.album.values()} == {"data:image/png;base64,"}
    assert set(tags.uses) == set(tags.album)
    links = [v for tag, name, v in tags.attributes if tag == "a" and name == "href"]
    anchors = {f"#{v}" for _, name, v in tags.attributes if name == "id"}
    assert len(links) == (2 if several else 0)
    assert set(links) <= anchors


def test_every_row_of_the_card_is_in_the_table(make_audit: MakeAudit, tmp_path: Path) -> None:
    folder = make_audit(configs=BOTH, attacks=("decoder", "mle", "my_plugin"))
    html, tags = written(tmp_path, folder)
    rows = Card.load(folder / "card.json").rows
    assert sorted(tags.rows) == list(range(len(rows))) == list(range(32))
    for row in rows:
        assert f">{row.psnr:.2f}<" in html
        assert f">{row.mse:.5f}<" in html
        assert f">{row.psnr_worst5:.2f}<" in html
    assert "no description of" in tags.text


def test_halves_of_a_defended_split_are_called_so(make_audit: MakeAudit, tmp_path: Path) -> None:
    _, tags = written(tmp_path, make_audit(configs=BOTH))
    assert "undefended" not in tags.text
    assert "defence none" not in tags.text
    assert tags.text.count("defended halves with nothing between, codec raw, task accuracy") == 2
    _, tags = written(tmp_path / "plain", make_audit("plain"))
    assert "defence none, codec raw" in tags.text


def test_hostile_names_stay_text(make_audit: MakeAudit, tmp_path: Path) -> None:
    text = ("model", "weights", "data", "threat_model", "suite", "hardware", "aux", "bundle")
    card: dict[str, object] = {**dict.fromkeys(text, HOSTILE), "notes": [HOSTILE], "versions": {HOSTILE: HOSTILE}}
    row = {"unreliable": [HOSTILE], "needs": [HOSTILE], "options": HOSTILE, "codec": HOSTILE}
    label = label_row(HOSTILE, cut=HOSTILE, attack=HOSTILE, **row)
    card["inferences"] = [label]
    folders = [make_audit(f"{i}<b>", cuts=(HOSTILE,), card=card, row=row) for i in range(2)]
    html, tags = written(tmp_path, *folders)
    assert "script" not in tags.count
    assert "<script" not in html
    assert not [name for _, name, _ in tags.attributes if name.startswith("on")]
    assert tags.crossed == []
    assert tags.text.count("alert('x')") >= 30


def test_doubts_come_before_any_chart(make_audit: MakeAudit, tmp_path: Path) -> None:
    _, sure = written(tmp_path / "sure", make_audit("sure"))
    assert "unreliable" not in sure.text
    assert sure.count["aside"] == 0
    html, tags = written(tmp_path / "unsure", make_audit("unsure", row={"unreliable": ["still improving"]}))
    assert tags.count["aside"] == 1
    assert html.index("still improving") < html.index("<svg")
    assert tags.text.count("unreliable: still improving") == 14


def test_several_audits_are_compared_and_then_told_apart(make_audit: MakeAudit, tmp_path: Path) -> None:
    folders = [
        make_audit("open", cuts=("layer1",), old=True),
        make_audit("veiled", cuts=("layer1",), configs=BOTH[1:], old=True),
    ]
    _, tags = written(tmp_path, *folders)
    assert tags.text.index("Side by side") < tags.text.index("What each attack recovered")
    assert len(tags.images) == 2 * (3 + 8) * 4
    assert tags.text.count("How this was measured") == 2
    assert tags.text.count("open · undefended · raw") == 1 + 2 + 1
    assert tags.text.count("The words used here") == 1


def test_intervals_and_adversaries_stand_beside_the_means(make_audit: MakeAudit, tmp_path: Path) -> None:
    folder = make_audit(cuts=("layer1",))
    html, tags = written(tmp_path, folder)
    for row in Card.load(folder / "card.json").rows:
        assert row.psnr_interval
        assert f">{row.psnr:.2f}<small>{row.psnr_interval[0]:.2f} to {row.psnr_interval[1]:.2f}<" in html
    assert "has the edge half and knows the defence: <b>white box</b>" in html
    assert html.count("knowing the truth: <b>no one adversary</b>") == 2
    assert "at least this\n    leaks" in tags.text
    assert "M-3," in html


def test_label_inferences_stand_against_chance(make_audit: MakeAudit, tmp_path: Path) -> None:
    flagged = label_row("shot", cut="layer2", unreliable=["few images: 9 of 20"])
    html, tags = written(tmp_path, make_audit(card={"inferences": [flagged, label_row()]}))
    assert html.index("<td>body <small>6 values<") < html.index("<td>shot <small>")
    assert "71.2 %<small>63.0 to 79.0 %<" in html
    assert html.count('<td class="n">22.5 %</td>') == 2
    assert "unreliable: few images: 9 of 20" in tags.text
    assert "attribute of shot (9 of 20)" in tags.text
    assert "A classifier, trained on" in tags.text


def test_an_audit_from_before_intervals_still_renders(make_audit: MakeAudit, tmp_path: Path) -> None:
    html, tags = written(tmp_path, make_audit(old=True))
    assert sorted(tags.rows) == list(range(14))
    assert "Labels read" not in tags.text
    assert "The images that leak most" not in tags.text
    assert "Under each mean" not in tags.text
    assert "<small>None" not in html
    assert tags.text.count("older than this check") == len(CHECKS) - len(FIRST)


def test_the_same_audit_gives_the_same_page(make_audit: MakeAudit, tmp_path: Path) -> None:
    folder = make_audit()
    assert written(tmp_path / "1", folder)[0] == written(tmp_path / "2", folder)[0]


def test_a_damaged_audit_leaves_the_old_page_alone(make_audit: MakeAudit, tmp_path: Path) -> None:
    good, bad, out = make_audit("good"), make_audit("bad"), tmp_path / "page.html"
    render([good], out)
    before = out.read_bytes()
    (bad / "scores.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(InputError, match=r"cannot be read.*splitveil audit"):
        render([good, bad], out)
    assert out.read_bytes() == before
    with pytest.raises(InputError, match="name a file"):
        render([good], good)


def test_the_report_imports_no_torch() -> None:
    code = "import sys, splitveil.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
