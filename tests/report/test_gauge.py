import pytest

from splitveil.core.records import Budget, Choice
from splitveil.report.gauge import gauges

from .plans import make_plan


def test_gauges_hold_the_upper_end_against_the_limit() -> None:
    plan = make_plan()
    found = {g.label: g for g in gauges(plan, plan.choices[0])}
    ssim, latency = found["SSIM, worst 5 %"], found["latency"]
    assert (ssim.value, ssim.upper, ssim.limit) == ("0.262", "0.282", "0.300")
    assert ssim.share == pytest.approx(0.94)
    assert (ssim.fill, ssim.broken, ssim.binds) == (94.0, False, True)
    assert not latency.measured
    tight = make_plan(feasible=False)
    over = {g.label: g for g in gauges(tight, tight.choices[0])}["SSIM, worst 5 %"]
    assert (over.fill, over.tick, over.broken) == (100.0, 50.0, True)
    unknown = gauges(plan, Choice(cut="a", defense="none", codec="raw", figures={}))
    assert {g.share for g in unknown} == {None}
    none = plan.model_copy(update={"budget": Budget(accuracy_drop=0.0)})
    assert [g.share for g in gauges(none, plan.choices[0])] == [None], "no share of nothing"
