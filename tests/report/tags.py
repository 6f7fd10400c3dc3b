"""A page as a browser takes it apart."""

import base64
import io
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from splitveil.report import render

VOID = {"meta", "img", "br", "link", "input"}
USE = r'<use href="#p\d+"/></svg>'


class Tags(HTMLParser):
    """Tags, attributes, images and text; remembers every tag that was left open or closed wrongly."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[int] = []
        self.album: dict[str, str] = {}
        self.uses: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.crossed: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        found = {name: value or "" for name, value in attrs}
        if tag == "image":
            self.album[f"#{found['id']}"] = found["href"]
        if tag == "use":
            self.uses.append(found["href"])
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
        """As shown, in the page's order."""
        return [self.album[anchor] for anchor in self.uses]


def written(tmp_path: Path, *folders: Path) -> tuple[str, Tags]:
    out = render(folders, tmp_path / "out" / "page.html")
    assert out == tmp_path / "out" / "page.html"
    assert [p.name for p in out.parent.iterdir()] == ["page.html"]
    html = out.read_text()
    return html, Tags(html)


def pixels(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))
