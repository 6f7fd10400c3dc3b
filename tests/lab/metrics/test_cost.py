import time

import pytest
import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.metrics.cost import latency


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, moved by hand."""
    seconds = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: seconds[0])
    return seconds


def test_latency_leaves_out_the_warm_up(now: list[float]) -> None:
    """Two slow calls first, then 1 to 20 seconds."""
    spans = iter([500.0, 100.0, *range(20, 0, -1)])

    def work(x: Tensor) -> None:
        assert not torch.is_grad_enabled()
        now[0] += next(spans)

    found = latency(work, torch.zeros(1), warmup=2, runs=20)
    assert (found.median, found.p95, found.runs) == (10.5, 20, 20)


def test_latency_of_real_work() -> None:
    found = latency(lambda x: x @ x, torch.rand(32, 32), warmup=1, runs=5)
    assert 0 < found.median <= found.p95


def test_bad_input() -> None:
    with pytest.raises(InputError, match="1 run or more"):
        latency(lambda x: x, torch.zeros(1), runs=0)
