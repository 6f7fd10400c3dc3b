"""Whoever is killed in the middle of an audit: it ends, or goes on, with the same records."""

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from .conftest import Command

AUDIT = (
    "audit", "small", "--data", "digits?n=200", "--at", "relu1,relu3", "-n", "30", "--threads", "1", "--json",
    "--attack", "decoder:size=tiny,epochs=1,steps=60", "--attack", "mle:steps=8", "--attack", "linear",
)  # fmt: skip
UNITS = 12


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What one process finds that nobody kills."""
    done = Command(tmp_path_factory.mktemp("whole"))(*AUDIT, "--out", "a")
    assert done.code in (0, 3), done.err
    return timeless(done.json)


@pytest.mark.long
@pytest.mark.parametrize("workers", ["2", pytest.param("ray", marks=pytest.mark.long)])
def test_killed_workers_are_replaced(splitveil: Command, whole: Any, workers: str) -> None:
    going = splitveil.start(*AUDIT, "--workers", workers, "--out", "a")
    waiting(going, splitveil.folder / "a" / "units", 2)
    for victim in workers_of(going.pid):
        victim.send_signal(signal.SIGKILL)
    out, err = going.communicate()
    assert going.returncode in (0, 3), err
    assert timeless(parsed(out)) == whole


@pytest.mark.long
def test_a_killed_driver_takes_its_workers_along_and_goes_on(splitveil: Command, whole: Any) -> None:
    killed(splitveil, units=3)
    resumed = splitveil(*AUDIT, "--workers", "2", "--out", "a", "--resume")
    assert timeless(resumed.json) == whole


@pytest.mark.long
def test_two_commands_on_one_folder_share_the_work(splitveil: Command, whole: Any) -> None:
    first = splitveil.start(*AUDIT, "--out", "a")
    waiting(first, splitveil.folder / "a" / "units", 1)
    second = splitveil.start(*AUDIT, "--out", "a", "--resume")
    (one, one_err), (other, other_err) = first.communicate(), second.communicate()
    assert {first.returncode, second.returncode} <= {0, 3}, one_err + other_err
    assert timeless(parsed(one)) == timeless(parsed(other)) == whole
    # Seconds are measured: two runs of one attack never take the same time.
    assert [r["seconds"] for r in parsed(one)["rows"]] == [r["seconds"] for r in parsed(other)["rows"]]


@pytest.mark.long
@pytest.mark.parametrize("round_", range(10))
@pytest.mark.parametrize(("what", "workers"), [("worker", "2"), ("driver", "2"), ("worker", "ray"), ("driver", "ray")])
def test_at_random_moments(splitveil: Command, whole: Any, what: str, workers: str, round_: int) -> None:
    draws = random.Random(f"{what} {workers} {round_}")
    if what == "driver":
        killed(splitveil, units=draws.randrange(UNITS - 1), after=draws.random(), workers=workers)
        done = splitveil(*AUDIT, "--workers", workers, "--out", "a", "--resume")
        found = done.json
    else:
        going = splitveil.start(*AUDIT, "--workers", workers, "--out", "a")
        waiting(going, splitveil.folder / "a" / "units", draws.randrange(UNITS - 1))
        time.sleep(draws.random())
        if victims := list(workers_of(going.pid)):
            draws.choice(victims).send_signal(signal.SIGKILL)
        out, err = going.communicate()
        assert going.returncode in (0, 3), err
        found = parsed(out)
    assert timeless(found) == whole


def killed(splitveil: Command, *, units: int, after: float = 0, workers: str = "2") -> None:
    """Start an audit and kill it; its workers end by themselves."""
    going = splitveil.start(*AUDIT, "--workers", workers, "--out", "a")
    waiting(going, splitveil.folder / "a" / "units", units)
    time.sleep(after)
    children = list(workers_of(going.pid)) if going.poll() is None else []
    going.kill()
    going.communicate()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def waiting(going: "subprocess.Popen[str]", units: Path, least: int) -> None:
    while len(list(units.glob("*.safetensors"))) < least and going.poll() is None:
        time.sleep(0.02)


def workers_of(pid: int) -> Iterator[psutil.Process]:
    for child in psutil.Process(pid).children(recursive=True):
        try:
            words = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if "spawn_main" in words or words.startswith(("ray::run", "ray::IDLE")):
            yield child


def parsed(out: str) -> Any:
    return json.loads(out)


def timeless(card: Any) -> Any:
    rows = [{**r, "seconds": 0} for r in card["rows"]]
    return {**card, "rows": rows, "inferences": [{**r, "seconds": 0} for r in card["inferences"]], "seconds": 0}
