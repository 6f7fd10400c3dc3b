import math

import pytest

from splitveil.core.errors import InputError
from splitveil.core.records import Budget, Figure
from splitveil.lab.planning.budgets import (
    binding,
    broken,
    check_budget,
    kept,
    parse_bytes,
    parse_count,
    parse_seconds,
    written,
)

from .fakes import counted


def test_units() -> None:
    assert parse_count("50M", "--max-edge-macs") == 50_000_000
    assert parse_count("1.5k", "--max-edge-macs") == 1500
    assert [parse_bytes(t, "--max-payload") for t in ("4KB", "4 KiB", "2mb", "7", "3B")] == [4000, 4096, 2e6, 7, 3]
    assert [parse_seconds(t, "--max-latency") for t in ("50ms", "0.2", "2s", "10us")] == pytest.approx(
        [0.05, 0.2, 2.0, 1e-5]
    )


@pytest.mark.parametrize("text", ["", "M", "4XB", "-3KB", "1e5", "4 K B"])
def test_what_is_no_number_of_bytes_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match=r"KB.*--max-payload, got .*; write --max-payload 4KB"):
        parse_bytes(text, "--max-payload")


def test_budgets_that_cannot_be_are_refused() -> None:
    check_budget(Budget(edge_macs=0, leakage={"psnr": -3.0}))
    for wrong in (Budget(payload=-1), Budget(latency=math.nan), Budget(leakage={"lpips": 0.3})):
        with pytest.raises(InputError):
            check_budget(wrong)


def test_excess_is_a_share_and_leakage_counts_with_its_interval() -> None:
    figures = counted({"payload": 300, "accuracy_drop": 1})
    figures["ssim"] = Figure(value=0.28, measured=True, interval=(0.25, 0.33))
    limits = {"payload": 200.0, "accuracy_drop": 2.0, "ssim": 0.3, "latency": 1.0}
    assert broken(figures, limits) == pytest.approx({"payload": 0.5, "ssim": 0.1})
    assert broken(counted({"accuracy_drop": 0.5}), {"accuracy_drop": 0.0}) == {"accuracy_drop": 0.5}


def test_a_limit_is_kept_only_by_what_was_measured() -> None:
    limits = {"ssim": 0.3}
    assert kept({"ssim": Figure(value=0.2, measured=True)}, limits)
    assert not kept({"ssim": Figure(value=0.2, measured=False)}, limits)
    assert not kept({}, limits)
    assert not kept({"ssim": Figure(value=0.31, measured=True)}, limits)
    assert kept({"latency": Figure(value=0.2, measured=False)}, {"latency": 0.3}), "a latency is always estimated"


def test_what_binds_is_what_alone_excludes_the_most() -> None:
    limits = {"ssim": 0.3, "payload": 100.0}
    rows = [
        counted({"ssim": 0.2, "payload": 300}),
        counted({"ssim": 0.2, "payload": 200}),
        counted({"ssim": 0.4, "payload": 50}),
    ]
    assert binding(rows, limits) == ["payload"]
    assert binding([counted({"ssim": 0.4, "payload": 300})], limits) == ["ssim", "payload"], "none alone: all broken"
    assert binding([counted({"ssim": 0.1, "payload": 3})], limits) == []


def test_figures_are_written_with_their_units() -> None:
    assert [written(*p) for p in (("edge_macs", 2.5e6), ("payload", 512.0), ("latency", 0.05), ("psnr", 18.0))] == [
        "2.5 MMAC", "512 B", "50 ms", "18.00 dB",
    ]  # fmt: skip
