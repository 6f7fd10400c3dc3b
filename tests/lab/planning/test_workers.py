"""A plan by several processes is the plan by one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from splitveil.core.records import Budget, Plan
from splitveil.lab.auditing.suites import Suite
from splitveil.lab.cut import Traced, trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.jobs import Workers
from splitveil.lab.planning import plan
from splitveil.lab.planning.planner import Planner

TIMES = ("seconds", "hardware")
LITTLE = Suite("little", "1", ("positions:size=small,epochs=1,steps=2",), 60, "for a test")


@pytest.fixture(scope="module")
def two() -> Iterator[Workers]:
    with Workers.of(2, 1) as workers:
        yield workers


@pytest.fixture(scope="module")
def data() -> Dataset:
    digits = load_data("digits")
    return Dataset("digits", digits.train.take(np.arange(200)), digits.test.take(np.arange(200)), digits.classes)


@pytest.fixture(scope="module")
def traced(data: Dataset) -> Traced:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)
    )
    return trace(net, torch.zeros(2, *data.shape))


def planned(traced: Traced, data: Dataset, out: Path, **more: Any) -> Plan:
    return plan(
        traced, data, model="net", weights="seed 0", budget=Budget(leakage={"ssim": 0.9}), out=out,
        cuts=["1", "3"], defenses=["none", "noise"], codecs=["raw", "uniform:bits=4"], levels=(0.25, 0.5, 0.75),
        suite=LITTLE, quick=LITTLE, n=10, epochs=1, audits=5, curve_n=0, **more,
    )  # fmt: skip


def told(folder: Path) -> dict[str, Any]:
    """The plan and the cards that it names, without how long things took."""
    record = json.loads((folder / "plan.json").read_text())
    cards = {c["card"] for c in record["choices"] if c.get("card")}
    return _timeless({"plan": record} | {name: json.loads((folder / name).read_text()) for name in cards})  # type: ignore[no-any-return]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in TIMES}
    if isinstance(value, list):
        return [_timeless(v) for v in value]
    return value


@pytest.mark.long
def test_records_are_the_same_for_one_process_and_for_two(
    two: Workers, traced: Traced, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[list[str]]([[], []])

    def noted(into: list[str]) -> Any:
        real = Planner.measure

        def measure(self: Planner, k: Any, **more: Any) -> None:
            into.append(k.option.label)
            real(self, k, **more)

        return measure

    for at, workers in enumerate((1, two)):
        with monkeypatch.context() as patched:
            patched.setattr(Planner, "measure", noted(asked[at]))
            planned(traced, data, tmp_path / f"{at}", workers=workers, threads=1)
    assert len(asked[0]) == 5
    assert asked[0] == asked[1], "the search asks in one order"
    one, other = (told(tmp_path / f"{at}") for at in range(2))
    assert [name for name in one if one[name] != other[name]] == []
    assert one.keys() == other.keys()
