"""A comparison by several processes is the comparison by one."""

import copy
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import splitveil
from splitveil.core.records import Comparison
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.comparing import compare
from splitveil.lab.comparing.sending import Sending
from splitveil.lab.cut import Split, split
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.jobs import Workers

TIMES = ("seconds", "epoch_ratio", "hardware")
DEFENSES = ("noise", "nopeek:weight=1e39")
"""One that is tuned, and one whose training comes to nothing."""


@pytest.fixture(scope="module")
def two() -> Iterator[Workers]:
    with Workers.of(2, 1) as workers:
        yield workers


def images() -> Dataset:
    digits = load_data("digits")
    return Dataset("digits", digits.train.take(np.arange(320)), digits.test.take(np.arange(150)), digits.classes)


def small() -> Callable[[int], Split]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 10))
    halves = split(net, "1", torch.zeros(2, 1, 8, 8))
    return lambda _: copy.deepcopy(halves)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return images()


@pytest.fixture(scope="module")
def fresh() -> Callable[[int], Split]:
    return small()


def asked(fresh: Callable[[int], Split], data: Dataset, out: Path, **more: Any) -> Comparison:
    settings: dict[str, Any] = {"workers": 1, "threads": 1, "seeds": (0, 1), "drops": (5.0,), **more}
    return compare(
        fresh, data, model="small", weights="seed 0", defenses=DEFENSES, out=out,
        suite=custom_suite(["positions:size=small,epochs=1,steps=2"]), n=10, aux_n=60, trials=2, epochs=2, lr=1e-2,
        **settings,
    )  # fmt: skip


def told(folder: Path) -> dict[str, Any]:
    """All records of a comparison, without how long things took."""
    found = {p.relative_to(folder).as_posix(): json.loads(p.read_text()) for p in folder.rglob("*.json")}
    return {name: _timeless(record) for name, record in found.items()}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in TIMES}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def test_records_are_the_same_for_one_process_and_for_two(
    two: Workers, data: Dataset, fresh: Callable[[int], Split], tmp_path: Path
) -> None:
    alone = asked(fresh, data, tmp_path / "one")
    assert [c.reached for c in alone.contenders if "nopeek" in c.label] == [False]
    asked(fresh, data, tmp_path / "two", workers=two)
    one, other = told(tmp_path / "one"), told(tmp_path / "two")
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []
    assert len([name for name in one if name.endswith("card.json")]) == 4


ELSEWHERE = """
import sys
from pathlib import Path
from tests.lab.comparing.test_workers import asked, images, small
if __name__ == "__main__":
    asked(small(), images(), Path(sys.argv[1]), workers=2, resume=True)
"""


@pytest.fixture
def elsewhere() -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """Begins the same comparison with two workers in a process of its own."""
    begun = list[subprocess.Popen[bytes]]()

    def begin(out: Path) -> subprocess.Popen[bytes]:
        root = Path(__file__).parents[3]
        environment = {**os.environ, "PYTHONPATH": f"{Path(splitveil.__file__).parents[1]}:{root}"}
        begun.append(subprocess.Popen([sys.executable, "-c", ELSEWHERE, str(out)], env=environment))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.wait()


def trained(out: Path) -> int:
    """Trainings that are finished."""
    return len([*out.glob("trials/weights-*.safetensors")])


@pytest.mark.slow
def test_kill_9_of_whoever_asked_loses_only_what_was_under_way(
    elsewhere: Callable[[Path], subprocess.Popen[bytes]], data: Dataset, fresh: Callable[[int], Split], tmp_path: Path
) -> None:
    killed = elsewhere(tmp_path / "killed")
    deadline = time.monotonic() + 200
    while trained(tmp_path / "killed") < 2:
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "killed").glob("trials/*.safetensors")}
    asked(fresh, data, tmp_path / "killed", resume=True)
    asked(fresh, data, tmp_path / "whole")
    assert told(tmp_path / "killed") == told(tmp_path / "whole")
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "killed").glob("trials/*.safetensors")}
    assert all(kept.get(name, at) == at for name, at in before.items()), "what was finished is not made again"


@pytest.mark.long
def test_two_commands_on_one_folder_share_the_work(
    elsewhere: Callable[[Path], subprocess.Popen[bytes]], data: Dataset, fresh: Callable[[int], Split], tmp_path: Path
) -> None:
    other = elsewhere(tmp_path / "c")
    while not (tmp_path / "c" / "trials").exists():
        time.sleep(0.05)
    ours = asked(fresh, data, tmp_path / "c", resume=True)
    assert other.wait(200) == 0
    theirs = Comparison.load(tmp_path / "c" / "comparison.json")
    # Seconds too: every training is one and the same.
    assert [c.tried for c in ours.contenders] == [c.tried for c in theirs.contenders]
    assert [c.measured for c in ours.contenders] == [c.measured for c in theirs.contenders]
    asked(fresh, data, tmp_path / "alone")
    assert told(tmp_path / "c") == told(tmp_path / "alone")


class Lost:
    """Cannot be opened elsewhere."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.environ.__getitem__, ("NO_SUCH_NAME",)


@pytest.mark.parametrize("value", [threading.Lock(), Lost()])
def test_what_cannot_be_sent_keeps_the_work_in_this_process(two: Workers, value: object) -> None:
    sending = Sending.of(two, [1, value])
    assert sending.workers.inline
    assert "cannot be sent to workers (" in sending.notes[0]
    assert Sending.of(two, [1]).workers is two
