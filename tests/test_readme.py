"""The README runs: its Python is executed, its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


@pytest.mark.long
@pytest.mark.parametrize("code", [code for language, code in BLOCKS if language == "python"])
def test_python_runs_as_printed(code: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "worst_case:ssim" in done.stdout


def test_there_is_python_to_run() -> None:
    assert any(language == "python" for language, _ in BLOCKS)


def test_make_targets_exist() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    targets = set(re.findall(r"^    make (\w+)", README, re.MULTILINE)) | set(re.findall(r"`make (\w+)`", README))
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_commands_and_options_exist() -> None:
    for line in re.findall(r"^ *(?:\$ )?splitveil (.*)$", README, re.MULTILINE):
        words = line.split()
        shown = subprocess.run(
            [sys.executable, "-m", "splitveil", words[0], "--help"], capture_output=True, text=True, check=True,
            env={"COLUMNS": "200", "PATH": ""},
        ).stdout  # fmt: skip
        for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line):
            assert option in shown, f"splitveil {words[0]} has no {option}"


def test_links_point_to_files() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (Path(__file__).parents[1] / target).exists(), target
