"""A comparison by several processes is the comparison by one."""

import copy
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from splitveil.core.records import Comparison
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.comparing import compare
from splitveil.lab.comparing.sending import Sending
from splitveil.lab.cut import Split, split
from splitveil.lab.data import Dataset
from splitveil.lab.jobs import Workers

TIMES = ("seconds", "epoch_ratio", "hardware")
DEFENSES = ("noise", "nopeek:weight=1e39")
"""One that is tuned, and one whose training comes to nothing."""


@pytest.fixture(scope="module")
def two() -> Iterator[Workers]:
    with Workers.of(2, 1) as workers:
        yield workers


@pytest.fixture(scope="module")
def fresh(data: Dataset) -> Callable[[int], Split]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 10))
    halves = split(net, "1", torch.zeros(2, *data.shape))
    return lambda _: copy.deepcopy(halves)


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
