"""benchmarks/serving.py: a tiny run of everything, and what the tables make of windows."""

import shutil
from pathlib import Path

import pytest
from benchmarks.serving_speed.load import judged
from benchmarks.serving_speed.measuring import Findings, Measurement, Schedule, beside
from benchmarks.serving_speed.page import limits, to_markdown
from benchmarks.serving_speed.records import BareWindow, DeviceImport, Process, ServingRun, Window
from benchmarks.serving_speed.subject import bundle


def record(
    ratio: float, added: float, start: float, rss: float, imported: float, share: float = 0.95, cpu: float = 0.5
) -> ServingRun:
    def window(concurrency: int) -> Window:
        return beside(
            Window(
                model="resnet18", server="SplitVeil", protocol="HTTP", concurrency=concurrency, round=0, answers=9,
                failed=0, rows_per_second=100 * ratio, p50_ms=5 + added, p99_ms=9, cpu_ms=2, wire_bytes=None,
                bare_rows_per_second=None, bare_p50_ms=None, bare_cpu_ms=None,
            ),
            BareWindow(batch=concurrency, round=0, rows_per_second=90, p50_ms=4, cpu_ms=1),
            BareWindow(batch=concurrency, round=0, rows_per_second=110, p50_ms=6, cpu_ms=2),
        )  # fmt: skip

    process = Process(
        model="resnet18", server="SplitVeil", version="0", start_seconds=[start], start_cpu_seconds=[cpu],
        processes=1, pss_mb=rss, rss_mb=rss - 5, pss_after_mb=rss, rss_after_mb=rss,
    )  # fmt: skip
    return ServingRun(
        date="today", hardware={}, versions={}, generator="none", isolated=False, feature_bytes=32768, rounds=1,
        window_seconds=1, warmup_seconds=0, load_averages=[0.0], windows=[window(1), window(32)],
        bare=[BareWindow(batch=1, round=0, rows_per_second=1000 * share, p50_ms=1, cpu_ms=1)], processes=[process],
        device_import=DeviceImport(seconds=[imported], cpu_seconds=[cpu]), left_out={},
    )  # fmt: skip


def test_limits_are_held_against_what_issue_7_asks_for() -> None:
    assert [limit.met for limit in limits(record(0.86, 1.4, 0.9, 199, 0.6))] == [True] * 5
    assert [limit.met for limit in limits(record(0.84, 1.6, 1.1, 201, 0.8))] == [False] * 5
    assert to_markdown(record(0.84, 1.6, 1.1, 201, 0.8), "none").count("**FAIL**") == 5


def test_a_busy_machine_decides_by_the_clock_only_what_is_within_a_limit_all_the_same() -> None:
    def met(*numbers: float, cpu: float = 0.5) -> list[bool | None]:
        ratio, added, start, rss, imported = numbers
        return [limit.met for limit in limits(record(ratio, added, start, rss, imported, share=0.4, cpu=cpu))]

    assert met(1.4, -2, 1.1, 201, 0.8) == [None, None, None, False, None]
    assert met(0.5, 9, 0.9, 199, 0.6) == [None, None, True, True, True]
    assert met(1, 1, 3, 199, 3, cpu=1.2) == [None, None, False, True, False]


def test_the_warm_up_and_failures_do_not_count_as_answers() -> None:
    ms = 1000
    log = [(0, 200, 9 * ms), (100 * ms, 200, 4 * ms), (104 * ms, 500, 1 * ms), (105 * ms, 200, 95 * ms)]
    got = judged(log, 0.1, 4 * 50, 50)
    assert (got.answers, got.failed, got.total) == (2, 1, 4)
    assert got.p50_ms == pytest.approx((4 + 95) / 2)
    assert got.rate == pytest.approx(2 / 0.1)
    # gRPC says 200 to what it refuses, and sends no body.
    assert judged([(0, 200, 1), (1, 200, 1), (2, 200, 1)], 0, 50, 50).failed == 2


@pytest.mark.skipif(shutil.which("h2load") is None, reason="no h2load here: apt-get install nghttp2-client")
def test_a_tiny_run_measures_both_protocols(tmp_path: Path) -> None:
    schedule = Schedule(rounds=1, window=0.4, warmup=0.1, bare=0.1, concurrencies=(1, 4), starts=1)
    found = Findings()
    small = bundle(tmp_path, "no-op")
    Measurement(small, "resnet18", schedule, False, tmp_path, lambda _: None).run(None, ["litserve"], found)
    assert [(w.protocol, w.concurrency) for w in found.windows] == [(p, c) for c in (1, 4) for p in ("HTTP", "gRPC")]
    assert all(w.answers and not w.failed and 0 < w.p50_ms <= w.p99_ms and w.cpu_ms > 0 for w in found.windows)
    assert [b.batch for b in found.bare] == [1, 1, 1, 4, 4, 4]
    assert found.left_out == {"litserve": "not installed"}
    (process,) = found.processes
    assert process.start_seconds[0] > process.start_cpu_seconds[0] * 0.3 > 0
    assert process.rss_after_mb is not None
    assert process.rss_after_mb > process.pss_mb > 10
