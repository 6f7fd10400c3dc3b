"""docs/adding-a-defense.md, followed word by word: its files are written, its package installed, its commands run."""

import json
import re
from pathlib import Path

import pytest

from splitveil.lab.defenses import base

from .test_adding_an_attack import install, splitveil

DOC = (Path(__file__).parents[1] / "docs" / "adding-a-defense.md").read_text()
FILES = dict(re.findall(r"```\w+ (\S+)\n(.*?)```", DOC, re.DOTALL))
COMMANDS = re.findall(r"^\$ (.*)$", DOC, re.MULTILINE)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return install(FILES, tmp_path / "site")


@pytest.mark.long
def test_the_package_of_the_tutorial_trains_and_is_audited(site: Path) -> None:
    first, *commands = (line.split() for line in COMMANDS)
    assert first == ["pip", "install", "."]
    for name, *words in commands:
        assert name == "splitveil"
        done = splitveil(site, *words)
        assert done.returncode in (0, 3), done.stderr
    card = json.loads((site.parent / "audit" / "card.json").read_text())
    by = {(r["defense"].partition(":")[0], r["attack"]): r for r in card["rows"]}
    assert {d for d, _ in by} == {"none", "hush"}
    assert by["hush", "decoder"]["psnr"] < by["none", "decoder"]["psnr"], "it must keep something back"
    manifest = json.loads((site.parent / "bundle" / "manifest.json").read_text())
    assert manifest["defense"] == "hush:keep=0.25,sigma=0.5,weight=0.01"
    assert manifest["noise"]["shape"][1:] == manifest["cut"]["shape"]


def test_it_is_listed(site: Path) -> None:
    found = json.loads(splitveil(site, "list", "defenses", "--json").stdout)
    assert found["hush"].startswith("Sends the most telling channels")


def test_every_method_that_it_names_is_there() -> None:
    table = DOC.partition("## What is called when")[2].partition("## Rules")[0]
    names = re.findall(r"`(\w+)\(", table)
    assert len(names) == 11
    assert [n for n in names if not hasattr(base.Defense, n) and n not in base.Batch._fields] == []
