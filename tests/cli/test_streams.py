"""Standard streams that are closed, full, without a reader, or of an encoding without our signs."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import splitveil

from .conftest import Command

SAYING = "import sys\nsys.argv = ['splitveil', *{words!r}]\n{more}\nfrom splitveil.cli import main\nmain()"
SIGNS = """
from splitveil.cli import app
from splitveil.cli.console import out, print_json, show_table
@app.command("signs")
def signs(json: bool = False):
    print("chatter")
    if json:
        print_json('{"sign": "1 µs ± 2 → 中"}')
    else:
        show_table("ranges ± 1 µs", ["", "µs"], [["a → b", "1 ± 2"], ["bad \\udcff name", "3"]])
"""


def shell(words: str, redirected: str) -> subprocess.CompletedProcess[str]:
    """``splitveil WORDS`` in a shell that redirects."""
    line = f'set -o pipefail; "{sys.executable}" -m splitveil {words} {redirected}'
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)


def run(*words: str, more: str = SIGNS, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    code = SAYING.format(words=list(words), more=more)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, env={**os.environ, **(env or {})}
    )


def test_the_version_has_one_place(splitveil: Command) -> None:
    import splitveil as package

    done = splitveil("--version")
    assert (done.code, done.out) == (0, f"splitveil {package.__version__}\n")
    assert version("splitveil") == package.__version__
    project = Path(__file__).parents[2] / "pyproject.toml"
    if project.exists():
        text = project.read_text()
        assert f'"{package.__version__}"' not in text
        assert 'attr = "splitveil.__version__"' in text


def test_a_closed_output_is_no_failure() -> None:
    """The case as it was seen; this one imports all that a listing needs."""
    done = shell("list attacks", ">&-")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "redirected", "code", "said"),
    [
        ("--version", ">&-", 0, ""),
        ("--version", "2>&-", 0, ""),
        ("--version", "<&-", 0, ""),
        ("--version", "<&- >&- 2>&-", 0, ""),
        ("--version", "| true", 0, ""),
        ("--version", ">/dev/full", 1, "error: cannot read or write standard output: No space left on device"),
        ("--version", ">&- 2>/dev/full", 0, ""),
        ("--help", ">/dev/full", 1, "error: cannot read or write standard output: No space left on device"),
        ("no-such-command", "2>&-", 2, ""),
        ("no-such-command", "2>/dev/full", 2, ""),
        ("bundle show no-such-folder", ">&- 2>&-", 2, ""),
    ],
)
def test_every_kind_of_stream(words: str, redirected: str, code: int, said: str) -> None:
    done = shell(words, redirected)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(said) if said else done.stderr == ""
    assert done.stderr.count("\n") <= 1


def test_a_reader_that_left_ends_the_printing_and_not_the_work() -> None:
    more = """
from splitveil.cli import app
@app.command("long")
def long():
    import sys, typer
    for k in range(20000):
        print("a line", k)
    print("saved", file=sys.stderr)
    raise typer.Exit(3)
"""
    code = SAYING.format(words=["long"], more=more)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "a line 0\n"
    process.stdout.close()
    assert process.stderr.read() == "saved\n"
    process.stderr.close()
    assert process.wait(20) == 3


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_encoding_makes_a_table_fail(encoding: str) -> None:
    done = run("signs", env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    assert "1 ± 2" in done.stdout.decode(encoding) or encoding == "ascii"
    told = run("signs", "--json", env={"PYTHONIOENCODING": encoding})
    assert json.loads(told.stdout.decode(encoding)) == {"sign": "1 µs ± 2 → 中"}
    assert told.stderr.decode().strip() == "chatter"


def test_a_plain_locale_and_no_home_are_enough(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os\nos.chdir({str(gone)!r})\nos.rmdir({str(gone)!r})\n" + SAYING.format(words=["signs"], more=SIGNS)
    env = {
        "PYTHONPATH": str(Path(splitveil.__file__).parents[1]), "LC_ALL": "C", "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }  # fmt: skip
    program = tmp_path / "program.py"
    program.write_text(code, "utf-8")
    done = subprocess.run([sys.executable, program], capture_output=True, check=False, env=env)
    assert done.returncode == 0, done.stderr


LOUD = """
import os
print("from the file")
os.system("echo from a child")
from torch import nn
def net():
    print("from the factory")
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
"""


def test_only_one_object_reaches_stdout_whatever_a_model_prints(splitveil: Command) -> None:
    (splitveil.folder / "loud.py").write_text(LOUD)
    done = splitveil("cuts", "loud.py:net", "--input", "1x8x8", "--json")
    assert done.code == 0, done.err
    assert done.json["cuts"]
    for words in ("from the file", "from a child", "from the factory"):
        assert words in done.err
