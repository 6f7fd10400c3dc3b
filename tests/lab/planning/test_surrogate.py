import pytest

from splitveil.lab.planning.surrogate import Surrogate, rank_check

from .fakes import option


def test_without_measurements_the_proxy_itself_and_with_few_the_proxy_shifted() -> None:
    proxy = {option(d): d / 10 for d in range(4)}
    assert Surrogate(proxy, {})(option(2)) == 0.2
    shifted = Surrogate(proxy, {option(0): 0.3})
    assert shifted(option(3)) == pytest.approx(0.6)


def test_it_is_monotone_along_one_group_and_beyond_what_was_measured() -> None:
    options = [option(0, s / 10) for s in range(10)]
    proxy = {o: o.strength**2 for o in options}
    found = Surrogate(proxy, {o: 0.5 + o.strength for o in options[2:8:2]})
    values = [found(o) for o in options]
    assert values == sorted(values)
    assert values[0] < values[2], "no flat end: what leaks less by the proxy is expected to leak less"


def test_what_was_missed_at_a_family_moves_that_family_most() -> None:
    proxy = {option(d, 0.5, f): 0.5 for d in range(5) for f in ("noise", "bottleneck")}
    measured = {option(0, 0.5, "noise"): 0.5, option(1, 0.5, "noise"): 0.5, option(0, 0.5, "bottleneck"): 0.2}
    found = Surrogate(proxy, measured)
    assert found(option(3, 0.5, "bottleneck")) < found(option(3, 0.5, "noise"))


def test_rank_checks_tell_agreement_reversal_and_too_few() -> None:
    cuts = [option(d, 0.0, "none") for d in range(6)]
    falling = {o: 1.0 - o.depth / 10 for o in cuts}
    same = rank_check(falling, {o: v**2 for o, v in falling.items()}, names=("p", "ssim"), over="cuts")
    assert same.rho == pytest.approx(1.0)
    assert (same.n, same.over) == (6, "cuts")
    assert same.interval == pytest.approx((1.0, 1.0))
    back = rank_check(falling, {o: 1 - v for o, v in falling.items()}, names=("p", "ssim"), over="choices")
    assert back.rho == pytest.approx(-1.0)
    few = rank_check(falling, dict.fromkeys(cuts[:2], 1.0), names=("p", "ssim"), over="cuts")
    assert (few.rho, few.interval, few.n) == (None, None, 2)


def test_widths_are_ranked_within_their_group() -> None:
    groups = [[option(d, s) for s in (0.2, 0.5, 0.9)] for d in (0, 1)]
    proxy = {o: o.strength - 10 * o.depth for g in groups for o in g}
    leaked = {o: o.strength + 10 * o.depth for g in groups for o in g}
    assert rank_check(proxy, leaked, names=("p", "ssim"), over="widths").rho == pytest.approx(1.0)
    assert (rank_check(proxy, leaked, names=("p", "ssim"), over="choices").rho or 0) < 0
