"""Ctrl-C, SIGTERM and a closed terminal: an exit code of their own, and how to go on."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from splitveil.cli.interruption import parting

WAITING = """
import sys
sys.argv = ["splitveil", *{words!r}]
import splitveil.cli.{name} as command
from splitveil.cli import app, main
for registered in app.registered_commands:
    if registered.name == "{name}":
        def run():
            import time
            print("begun", flush=True)
            time.sleep(60)
        registered.callback = run
main()
"""


def stopped(number: int, *words: str) -> tuple[int, str]:
    """Code and standard error of a command that is told to stop while it works."""
    code = WAITING.format(words=list(words), name=words[0])
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    return process.returncode, err


@pytest.mark.parametrize("name", ["audit", "compare", "plan", "fit"])
def test_ctrl_c_says_that_resume_goes_on(name: str) -> None:
    code, err = stopped(signal.SIGINT, name)
    assert code == 130
    assert err == (f"stopped; what had ended is kept, and --resume goes on from there: splitveil {name} --resume\n")


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_other_signals_end_a_command_alike(number: int, expected: int) -> None:
    code, err = stopped(number, "fit")
    assert code == expected
    assert "--resume" in err


def test_words_are_ready_to_paste() -> None:
    words = ["audit", "small", "--data", "npz:my photos.npz", "--out", "a"]
    again = "splitveil audit small --data 'npz:my photos.npz' --out a --resume"
    assert parting(words).endswith(again)
    assert parting([*words, "--resume"]).endswith(again)
    assert "anew" in parting(["demo"])
    assert parting(["query", "b"]) == parting(["serve", "b"]) == parting([]) == ""


def test_commands_without_resume_end_silently() -> None:
    code, err = stopped(signal.SIGINT, "query")
    assert (code, err) == (130, "")


@pytest.mark.slow
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM])
def test_a_stopped_audit_leaves_whole_files_and_goes_on(number: int, tmp_path: Path) -> None:
    words = [
        "audit", "small", "--data", "digits", "--at", "relu1", "-n", "30", "--out", "a", "--samples", "0",
        "--attack", "linear", "--attack", "decoder:size=tiny,epochs=2,steps=100000",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "splitveil", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("linear"):
            break
    while not (finished := list((tmp_path / "a" / "units").glob("*---linear-*.safetensors"))):
        assert process.poll() is None, "the attack is told of before it is scored and kept"
        time.sleep(0.05)
    process.send_signal(number)
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 128 + number
    assert "--resume goes on" in err
    assert "Traceback" not in err
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")], "nothing half-written"
    (kept,) = finished
    written = kept.stat().st_mtime_ns
    words[-1] = "decoder:size=tiny,epochs=1,steps=5"
    done = subprocess.run(
        [sys.executable, "-m", "splitveil", *words, "--resume"], cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (tmp_path / "a" / "card.json").exists(), done.stderr
    assert kept.stat().st_mtime_ns == written, "not made anew"
