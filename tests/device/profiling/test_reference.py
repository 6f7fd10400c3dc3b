"""The reference graph is what its script builds, and what its speed may be used for."""

import pytest

from splitveil.core.errors import InputError
from splitveil.core.records.device import Device, Timing
from splitveil.device.profiling import reference
from splitveil.device.profiling.graph import graph_macs
from splitveil.device.profiling.reference import MACS, reference_graph, reference_speed, scaled, time_reference
from tests.device.profiling.build_reference import PATH, build


def test_the_committed_graph_is_the_one_that_is_built() -> None:
    assert reference_graph() == PATH.read_bytes() == build()
    assert len(build()) < 200_000


def test_its_work_is_counted() -> None:
    assert graph_macs(reference_graph()) == MACS == time_reference(warmup=0, runs=1).macs


def test_speed_is_work_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reference_speed(warmup=0, runs=3) > 0
    asked = []

    def timed(threads: int, *, warmup: int, runs: int) -> Timing:
        asked.append((threads, warmup, runs))
        return Timing(graph="reference", macs=MACS, median=0.5, p95=9.0, runs=runs)

    monkeypatch.setattr(reference, "time_reference", timed)
    assert reference_speed(2, warmup=1, runs=7) == 2 * MACS
    assert asked == [(2, 1, 7)]


def timing(graph: str = "edge", median: float = 0.010, sha256: str = "a", batch: int = 1) -> Timing:
    return Timing(graph=graph, macs=10**6, median=median, p95=2 * median, runs=50, sha256=sha256, batch=batch)


def device(name: str, speed: float, *timings: Timing) -> Device:
    return Device(name=name, macs_per_second=speed, source="by hand", timings=list(timings))


def test_scaling_is_an_estimate_and_says_so() -> None:
    found = scaled(timing(), device("desk", 8e10), device("board", 1e10))
    assert found.value == pytest.approx(0.080)
    assert not found.measured
    assert "scaled from desk by 8" in found.source
    assert "board: by hand" in found.source


def test_a_timing_of_that_very_graph_is_measured() -> None:
    own = timing(median=0.123)
    found = scaled(timing(), device("desk", 8e10), device("board", 1e10, own))
    assert (found.value, found.measured) == (0.123, True)
    assert "board" in found.source
    by_name = scaled(timing(sha256=""), device("desk", 8e10), device("board", 1e10, own))
    assert (by_name.value, by_name.measured) == (0.123, True)


@pytest.mark.parametrize("other", [timing(sha256="b"), timing("cloud", sha256=""), timing(batch=8)])
def test_another_graph_is_not(other: Timing) -> None:
    found = scaled(timing(), device("desk", 8e10), device("board", 1e10, other))
    assert found.value == pytest.approx(0.080)
    assert not found.measured


def test_here_is_measured_here() -> None:
    here = device("desk", 8e10)
    found = scaled(timing(), here, here.model_copy())
    assert (found.value, found.measured) == (0.010, True)
    again = scaled(timing(), device("here", 8e10), device("here", 9e10))
    assert (again.value, again.measured) == (0.010, True)
    for other in ({"hardware": "another"}, {"threads": 2}, {"name": "board"}):
        assert not scaled(timing(), device("here", 8e10), device("here", 9e10).model_copy(update=other)).measured


def test_a_device_without_a_speed_is_refused() -> None:
    with pytest.raises(InputError, match="speeds above 0"):
        scaled(timing(), device("desk", 8e10), device("board", 0))
