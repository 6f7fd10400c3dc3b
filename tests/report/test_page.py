"""The page as a browser gets it."""

import base64
import io
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from splitveil.errors import InputError
from splitveil.records import Card
from splitveil.report import render

from .conftest import MakeAudit

BOTH = (("none", "raw"), ("noise:sigma=0.5", "uniform:bits=8"))
VOID = {"meta", "img", "br", "link", "input"}
HOSTILE = "<script>alert('x')</script>\" onload=\"y"


class Tags(HTMLParser):
    """Tags, attributes, images and text; remembers every tag that was left open or closed wrongly."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[int] = []
        self.text = ""
        self.open: list[str] = []
        self.crossed: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.rows += [int(value or "") for name, value in attrs if name == "data-row"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.crossed.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def images(self) -> list[str]:
        return [value for tag, name, value in self.attributes if tag == "img" and name == "src"]


def written(tmp_path: Path, *folders: Path) -> tuple[str, Tags]:
    out = render(folders, tmp_path / "out" / "page.html")
    assert out == tmp_path / "out" / "page.html"
    assert [p.name for p in out.parent.iterdir()] == ["page.html"]
    html = out.read_text()
    return html, Tags(html)


def pixels(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))


@pytest.mark.parametrize("several", [False, True])
def test_page_asks_nothing_of_the_network_and_is_well_formed(
    several: bool, make_audit: MakeAudit, tmp_path: Path
) -> None:
    folders = [make_audit("a", configs=BOTH), make_audit("b")][: 2 if several else 1]
    html, tags = written(tmp_path, *folders)
    assert tags.crossed == []
    assert tags.open == []
    assert not re.search(r"https?:|@import|url\(|//[a-z]", re.sub(r"base64,[^\"]*", "", html))
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(tags.count)
    sources = {v[:22] for _, name, v in tags.attributes if name in {"src", "srcset", "data", "xlink:href"}}
    assert sources == {"data:image/png;base64,"}
    links = [v for _, name, v in tags.attributes if name == "href"]
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


@pytest.mark.parametrize(
    ("shape", "mode"), [((1, 8, 8), "L"), ((3, 8, 8), "RGB"), ((1, 32, 32), "L"), ((3, 32, 32), "RGB")]
)
def test_pictures_are_the_samples_bit_for_bit(
    shape: tuple[int, int, int], mode: str, make_audit: MakeAudit, tmp_path: Path
) -> None:
    folder = make_audit(shape=shape, cuts=("layer1",), samples=3)
    _, tags = written(tmp_path, folder)
    kept = load_file(folder / "samples.safetensors")
    expected = [kept["input"], *(kept[f"row{i:03d}"] for i in range(7))]
    assert len(tags.images) == 8 * 3
    for uri, image in zip(tags.images, np.concatenate(expected), strict=True):
        found = pixels(uri)
        assert found.mode == mode
        assert np.array_equal(np.asarray(found), image[0] if mode == "L" else image.transpose(1, 2, 0))


def test_scores_under_a_picture_are_that_image_s_own(make_audit: MakeAudit, tmp_path: Path) -> None:
    folder = make_audit(cuts=("layer1",), samples=4)
    html, _ = written(tmp_path, folder)
    scores = load_file(folder / "scores.safetensors")
    shown = re.findall(r'alt="decoder for input (\d+)"><span>([\d.]+)</span><span>([\d.]+)</span>', html)
    assert [(int(i), p, s) for i, p, s in shown] == [
        (1000 + 7 * i, f"{scores['row003.psnr'][i]:.1f}", f"{scores['row003.ssim'][i]:.2f}") for i in range(4)
    ]


def test_a_large_image_is_shown_reduced(make_audit: MakeAudit, tmp_path: Path) -> None:
    _, tags = written(tmp_path, make_audit(shape=(3, 160, 80), cuts=("layer1",), samples=1, n=4))
    assert {pixels(uri).size for uri in tags.images} == {(64, 128)}


def test_without_samples_there_is_no_picture(make_audit: MakeAudit, tmp_path: Path) -> None:
    folder = make_audit(samples=0)
    assert not (folder / "samples.safetensors").exists()
    html, tags = written(tmp_path, folder)
    assert tags.count["img"] == 0
    assert "data:" not in html
    assert "kept no sample images" in tags.text
    assert sorted(tags.rows) == list(range(14))


def test_a_row_without_samples_says_so(make_audit: MakeAudit, tmp_path: Path) -> None:
    folder = make_audit(cuts=("layer1",))
    kept = load_file(folder / "samples.safetensors")
    del kept["row006"]
    save_file(kept, folder / "samples.safetensors")
    _, tags = written(tmp_path, folder)
    assert len(tags.images) == 7 * 4
    assert tags.text.count("no sample images kept for this row") == 1


def test_hostile_names_stay_text(make_audit: MakeAudit, tmp_path: Path) -> None:
    text = ("model", "weights", "data", "threat_model", "suite", "hardware", "aux", "bundle")
    card = {**dict.fromkeys(text, HOSTILE), "notes": [HOSTILE], "versions": {HOSTILE: HOSTILE}}
    row = {"unreliable": [HOSTILE], "needs": [HOSTILE], "options": HOSTILE, "codec": HOSTILE}
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
    folders = [make_audit("open", cuts=("layer1",)), make_audit("veiled", cuts=("layer1",), configs=BOTH[1:])]
    _, tags = written(tmp_path, *folders)
    assert tags.text.index("Side by side") < tags.text.index("What each attack recovered")
    assert len(tags.images) == 2 * (3 + 8) * 4
    assert tags.text.count("How this was measured") == 2
    assert tags.text.count("open · undefended · raw") == 1 + 2 + 1
    assert tags.text.count("The words used here") == 1


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
