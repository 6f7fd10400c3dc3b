"""Constraint honesty: whatever the tables and limits, nothing is recommended that breaks one when measured afresh."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitveil.core.records import Need
from splitveil.lab.planning.budgets import broken
from splitveil.lab.planning.clock import Clock
from splitveil.lab.planning.need import needed
from splitveil.lab.planning.recommendation import TRIES, Verdict, nearest, verified, why, why_not
from splitveil.lab.planning.search import Known

from .fakes import known, measured, option, search_of

share = st.floats(0, 1)
table = st.lists(st.tuples(share, share, share, st.floats(-0.3, 0.5)), min_size=1, max_size=8)
limits = st.fixed_dictionaries(
    {}, optional={"ssim": share, "accuracy_drop": st.floats(0, 100), "edge_macs": st.just(4e3)}
)
FLOORS = {"ssim": ("class_mean", 0.1)}


def searched(rows: list[tuple[float, float, float, float]], given_: dict[str, float]) -> tuple[list[Known], Verdict]:
    """Rows: proxy, accuracy, SSIM in the search, and what fresh attacks get beyond it."""
    ks = [known(option(d), proxy=row[0]) for d, row in enumerate(rows)]
    ks = [k for k in ks if not broken(k.costs, given_)]
    search = search_of(ks, given_)

    def measure(k: Known) -> None:
        _, accuracy, ssim, _ = rows[k.option.depth]
        k.found = measured(accuracy, ssim)

    def verify(k: Known) -> None:
        _, accuracy, ssim, more = rows[k.option.depth]
        k.fresh = measured(accuracy, min(1.0, max(0.0, ssim + more)), 0.02)

    search.run(measure, lambda: True, len(ks))
    verdict = verified(search, verify, lambda: True)
    if verdict.chosen:
        assert why(search, verdict, "smoke-1").startswith(verdict.chosen.option.cut)
    else:
        assert "inding constraint" in why_not(search, verdict, given_, [], floors=FLOORS, complete=True)
    return ks, verdict


@settings(max_examples=150, deadline=None)
@given(table, limits)
def test_what_is_recommended_keeps_every_limit_afresh(
    rows: list[tuple[float, float, float, float]], given_: dict[str, float]
) -> None:
    ks, verdict = searched(rows, given_)
    if verdict.chosen is not None:
        fresh = verdict.chosen.fresh
        assert fresh, "never without a fresh measurement"
        assert not broken(verdict.chosen.figures(), given_)
        if "ssim" in given_:
            assert fresh["ssim"].interval
            assert fresh["ssim"].interval[1] <= given_["ssim"], "the upper end of the interval too"
        return
    left = [k for k in ks if not broken(k.found, given_) and k not in verdict.tried]
    assert not left or len(verdict.tried) == TRIES
    assert all(broken(k.figures(), given_) for k in verdict.tried)


def test_the_next_choice_is_taken_where_fresh_attacks_break_the_first() -> None:
    _, verdict = searched([(0.2, 0.9, 0.25, 0.2), (0.2, 0.9, 0.2, 0.05)], {"ssim": 0.3})
    assert verdict.chosen is not None
    assert verdict.chosen.option.depth == 1
    assert [k.option.depth for k in verdict.tried] == [0, 1]


def test_after_one_failure_those_that_would_fail_alike_come_last() -> None:
    rows = [(0.2, 0.9, 0.28, 0.1), (0.2, 0.9, 0.27, 0.1), (0.2, 0.9, 0.10, 0.1)]
    _, verdict = searched(rows, {"ssim": 0.3})
    assert [k.option.depth for k in verdict.tried] == [0, 2]


def test_nothing_is_recommended_when_time_is_over_before_it_was_verified() -> None:
    k = known(option(0))
    k.found = measured(0.9, 0.1)
    search = search_of([k], {"ssim": 0.3})
    verdict = verified(search, lambda _: None, lambda: False)
    assert (verdict.chosen, verdict.ended) == (None, False)
    assert "time ran out" in why_not(search, verdict, {"ssim": 0.3}, [], floors=FLOORS, complete=True)


def test_an_infeasible_budget_names_what_binds_and_what_is_nearest() -> None:
    given_ = {"ssim": 0.05, "accuracy_drop": 20.0}
    ks, verdict = searched([(0.2, 0.9, 0.2, 0.0), (0.2, 0.9, 0.1, 0.0), (0.2, 0.1, 0.3, 0.0)], given_)
    search = search_of(ks, given_)
    assert nearest(search)[0] is ks[1]
    text = why_not(search, verdict, given_, [], floors=FLOORS, complete=True)
    assert "binding constraint: SSIM" in text
    assert "cut1" in text
    assert "SSIM 0.100 instead of 0.050" in text
    assert "class_mean, which sees no features, gets 0.100" in text


def test_where_counting_excludes_everything_the_nearest_is_told_by_its_costs() -> None:
    k = known(option(0))
    search = search_of([], {"edge_macs": 500.0})
    text = why_not(search, Verdict(None, (), True), {"edge_macs": 500.0}, [k], floors=FLOORS, complete=True)
    assert "binding constraint: edge macs" in text
    assert "0.001 MMAC instead of 0.0005 MMAC" in text


def test_where_nothing_was_measured_nothing_is_said_to_break_or_bind() -> None:
    """The proxies expect every choice to keep the limit; that is no measurement, and neither is the contrary."""
    ks = [known(option(d), proxy=0.2) for d in range(3)]
    given_ = {"ssim": 0.3, "edge_macs": 4e3}
    search = search_of(ks, given_)
    need = Need(training=4.0, audit=21.0, fresh=84.0, choices=12, one=400.0, whole=1130.0)
    text = why_not(search, Verdict(None, (), True), given_, [], floors=FLOORS, complete=False, need=need)
    assert text.startswith("Nothing was measured: ")
    assert "keeps" not in text
    assert "; expected binding constraint, by estimates: none." in text
    assert "about 7 minutes with one choice measured, about 19 with all 12 that were meant" in text
    assert "4 s for a training, 21 s for a short audit, 84 s for a fresh one" in text
    assert text.endswith("give --minutes 19 and --resume.")
    assert search.binding([]) == ([], False)


def test_what_binds_is_told_by_what_was_measured() -> None:
    """Estimates of choices that were not measured would have named SSIM."""
    ks = [known(option(d), proxy=0.9) for d in range(4)]
    search = search_of(ks, {"ssim": 0.3, "accuracy_drop": 5.0})
    assert "ssim" in search.binding([])[0]
    assert not search.binding([])[1]
    ks[0].found = measured(0.5, 0.1)
    assert search.binding([]) == (["accuracy_drop"], True)
    dear = known(option(7))
    assert search_of([], {"edge_macs": 500.0}).binding([dear]) == (["edge_macs"], True), "counted is known"


def test_the_time_that_is_needed_follows_from_what_was_timed() -> None:
    clock = Clock(3.0)
    for kind, seconds in (("audit", 20.0), ("proxy", 2.0), ("proxy", 4.0), ("measure", 30.0)):
        clock.note(kind, seconds)
    need = needed(clock, choices=8, training=10.0, waiting=3)
    assert (need.training, need.audit, need.fresh, need.choices) == (10.0, 20.0, 80.0, 8)
    fixed = clock.seconds - 30 + 3 * 4
    assert need.whole == pytest.approx((fixed + 8 * 30) / 0.7, abs=1)
    assert need.one >= 180, "these three minutes were not enough"
    clock.note("fresh", 50.0)
    assert needed(clock, choices=8, training=10.0, waiting=3).fresh == 50.0
