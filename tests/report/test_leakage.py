"""The summary chart."""

from pathlib import Path

import pytest

from splitveil.report.configuration import configurations
from splitveil.report.folder import Folder
from splitveil.report.leakage import PLOT, TOP, Series, panel, places

from .conftest import MakeAudit, cut_record


def drawn(path: Path) -> tuple[Folder, list[Series]]:
    folder = Folder.load(path)
    configs = configurations(folder.card)
    labels = list(dict.fromkeys(c.label for c in configs))
    return folder, [Series(b, i, {c.cut: c for c in configs if c.label == b}) for i, b in enumerate(labels)]


def test_cuts_stand_by_depth_whatever_the_order_of_rows(make_audit: MakeAudit) -> None:
    cuts = [cut_record(name, i, 3) for i, name in enumerate(("stem", "layer1", "layer2"))]
    folder, series = drawn(make_audit(cuts=("layer2", "stem", "layer1"), samples=0, card={"cuts": cuts}))
    ticks = places([folder])
    assert [t.text for t in ticks] == ["stem", "layer1", "layer2"]
    assert [t.below for t in ticks] == ["edge 25.0 %", "edge 50.0 %", "edge 75.0 %"]
    assert [c.cut for c in configurations(folder.card)] == ["stem", "layer1", "layer2"]
    found = panel("psnr", series, ticks)
    assert found is not None
    assert [p.x for p in found.lines[0].points] == [t.at for t in ticks]


def test_more_leakage_stands_higher_and_inside_the_frame(make_audit: MakeAudit) -> None:
    configs = (("none", "raw"), ("noise", "raw"))
    folder, series = drawn(make_audit(samples=0, configs=configs))
    for metric in ("psnr", "ssim"):
        found = panel(metric, series, places([folder]))
        assert found is not None
        plain, noisy = found.lines
        assert all(p.y < n.y for p, n in zip(plain.points, noisy.points, strict=True))
        assert all(TOP <= p.y <= TOP + PLOT for line in found.lines for p in line.points)
        assert all(p.above and not n.above for p, n in zip(plain.points, noisy.points, strict=True))


def test_an_interval_is_a_whisker_that_the_number_keeps_clear_of(make_audit: MakeAudit) -> None:
    row = {"psnr": 20.0, "psnr_interval": (18.0, 24.0)}
    folder, series = drawn(make_audit(cuts=("layer1",), samples=0, row=row))
    found = panel("psnr", series, places([folder]))
    assert found is not None
    point = found.lines[0].points[0]
    low, high = (float(v) for v in point.whisker.removeprefix("M0,").partition("M")[0].split("V"))
    assert high < 0 < low
    assert abs(high / low + 2) < 0.01
    assert point.offset < high
    assert point.note.endswith("20.0 (18.0 to 24.0)")
    assert TOP <= point.y + high < point.y + low <= TOP + PLOT


def test_without_an_interval_there_is_no_whisker(make_audit: MakeAudit) -> None:
    folder, series = drawn(make_audit(samples=0, old=True))
    found = panel("psnr", series, places([folder]))
    assert found is not None
    assert {p.whisker for p in found.lines[0].points} == {""}


@pytest.mark.parametrize("psnr", [100.0, 0.0, 12.3456])
def test_equal_values_still_have_an_axis(psnr: float, make_audit: MakeAudit) -> None:
    folder, series = drawn(make_audit(cuts=("layer1",), samples=0, row={"psnr": psnr, "ssim": 1.0}))
    found = panel("psnr", series, places([folder]))
    assert found is not None
    assert len(found.y_ticks) >= 2
    assert TOP <= found.lines[0].points[0].y < TOP + PLOT


def test_no_worst_case_no_chart(make_audit: MakeAudit) -> None:
    folder, series = drawn(make_audit(samples=0, row={"attack": "decoder"}))
    assert panel("psnr", series, places([folder])) is None
