import math

import pytest
import torch
from scipy import stats

from splitveil.core.records import CutNumbers, Number
from splitveil.lab.auditing.criterion.correlation import correlations, ranks, spearman


def at(cut: str, value: float | None, **errors: float) -> CutNumbers:
    number = Number(name="mine", family="information", value=value, unit="nats", leaks="more")
    return CutNumbers(
        cut=cut, defense="none", codec="raw", edge_share=0.5, elements=4, numbers=[number], errors=errors
    )  # fmt: skip


@pytest.mark.parametrize("count", [3, 6, 12])
def test_rank_correlation_equals_scipys_with_ties(count: int) -> None:
    torch.manual_seed(count)
    a, b = torch.randint(0, count, (2, count)).double().tolist()
    rho, chance = spearman(a, b)
    wanted = stats.spearmanr(a, b).statistic
    assert rho is not None
    assert chance is not None
    assert rho == pytest.approx(wanted, abs=1e-9)
    assert 0 < chance <= 1


def test_chance_is_exact_for_few_cuts() -> None:
    # Of the 24 orders of four values two are as strong: this one and its reverse.
    rho, chance = spearman([1, 2, 3, 4], [10, 20, 30, 40])
    assert rho == pytest.approx(1.0)
    assert chance == pytest.approx(2 / 24)


def test_chance_of_many_cuts_is_near_that_of_all_orders() -> None:
    a, b = [float(k) for k in range(10)], [0.0, 2, 1, 4, 3, 6, 5, 9, 7, 8]
    rho, chance = spearman(a, b)
    assert rho is not None
    assert rho > 0.9
    assert chance == pytest.approx(stats.spearmanr(a, b).pvalue, abs=1e-3)


def test_nothing_is_said_of_two_cuts_or_of_a_constant() -> None:
    assert spearman([1, 2], [1, 2]) == (None, None)
    assert spearman([1, 1, 1], [1, 2, 3]) == (None, None)
    assert ranks(torch.tensor([3.0, 1.0, 3.0])).tolist() == [2.5, 1.0, 2.5]


def test_only_attacks_of_every_cut_are_correlated_and_missing_values_left_out() -> None:
    cuts = [
        at("a", 3.0, decoder=0.1, mle=0.3), at("b", None, decoder=0.2), at("c", 2.0, decoder=0.3),
        at("d", 1.0, decoder=0.4),
    ]  # fmt: skip
    (found,) = correlations(cuts)
    assert (found.attack, found.cuts) == ("decoder", 3)
    assert found.rho is not None
    assert math.isclose(found.rho, -1.0)
    assert correlations([]) == []
