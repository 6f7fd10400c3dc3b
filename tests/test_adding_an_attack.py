"""docs/adding-an-attack.md, followed word by word: its files are written, its package installed, its command run."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

DOC = (Path(__file__).parents[1] / "docs" / "adding-an-attack.md").read_text()
FILES = dict(re.findall(r"```\w+ (\S+)\n(.*?)```", DOC, re.DOTALL))
COMMANDS = re.findall(r"^\$ (.*)$", DOC, re.MULTILINE)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return install(FILES, tmp_path / "site")


def install(files: dict[str, str], folder: Path) -> Path:
    """What ``pip install .`` would leave in `folder`: the modules, and the metadata that the project file gives."""
    project = tomllib.loads(files["pyproject.toml"])
    for module in project["tool"]["setuptools"]["py-modules"]:
        (folder / f"{module}.py").parent.mkdir(exist_ok=True)
        (folder / f"{module}.py").write_text(files[f"{module}.py"])
    name, version = project["project"]["name"], project["project"]["version"]
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = project["project"]["entry-points"]
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in found.items()) for group, found in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return folder


def splitveil(site: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "splitveil", *words],
        cwd=site.parent,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_package_of_the_tutorial_is_audited_with(site: Path) -> None:
    install, command, _ = COMMANDS
    assert install == "pip install ."
    words = command.split()
    assert words.pop(0) == "splitveil"
    done = splitveil(site, *words)
    assert done.returncode in (0, 3), done.stderr
    assert "ridge:draws=2" in done.stdout
    card = json.loads((site.parent / "audit" / "card.json").read_text())
    by = {f"{r['attack']}:{r['options']}": r for r in card["rows"]}
    assert by["ridge:draws=4"]["psnr"] > by["mean:"]["psnr"] + 3, "it must get something out of the features"
    assert {why.partition(":")[0] for why in by["ridge:draws=4"]["unreliable"]} == {"barely trained"}, "no weights"
    assert abs(by["ridge:draws=4"]["evidence"]["scale"]) < 0.1
    assert [r["attack"] for r in card["rows"]][-4:] == ["ridge", "ridge", "worst_case:psnr", "worst_case:ssim"]


@pytest.mark.slow
def test_its_file_alone_is_held_against_a_suite(tmp_path: Path) -> None:
    (tmp_path / "splitveil_ridge.py").write_text(FILES["splitveil_ridge.py"])
    # The smoke suite takes a minute here: one attack of it stands for all.
    words = COMMANDS[-1].replace("--suite smoke", "--attack linear").split()
    done = splitveil(tmp_path / "site", *words[1:])
    assert done.returncode in (0, 3), done.stderr
    assert "from outside: ridge against the best of the suite's attacks" in done.stdout
    card = json.loads((tmp_path / "against" / "card.json").read_text())
    assert card["against"][0]["attack"] == "ridge"


def test_it_is_listed(site: Path) -> None:
    found = json.loads(splitveil(site, "list", "attacks", "--json").stdout)
    assert found["ridge"].startswith("Ridge regression")


def test_links_point_to_files() -> None:
    docs = Path(__file__).parents[1] / "docs"
    for name in ("adding-an-attack.md", "audit-checks.md", "threat-models.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)", (docs / name).read_text()):
            assert (docs / target).exists(), target
