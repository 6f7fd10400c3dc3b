import pytest

from splitveil.core.errors import InputError
from splitveil.device.retry import Retry, RetryBudget


def test_pauses_double_up_to_the_longest_and_half_of_each_is_random() -> None:
    rules = Retry(first=0.1, longest=1.0)
    for attempt, whole in ((1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (5, 1.0), (60, 1.0)):
        drawn = [rules.pause(attempt) for _ in range(200)]
        assert whole / 2 <= min(drawn) < 0.6 * whole
        assert 0.9 * whole < max(drawn) <= whole


def test_a_budget_is_spent_and_earned_back() -> None:
    budget = RetryBudget(Retry(reserve=2, ratio=0.5))
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    budget.earn()
    assert not budget.spend()
    budget.earn()
    assert budget.spend()
    for _ in range(100):
        budget.earn()
    assert [budget.spend() for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"first": 0.0}, {"first": 3.0}, {"ratio": -1.0}, {"patience": 0.0}])
def test_senseless_rules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"use Retry\(\)"):
        Retry(**wrong)  # type: ignore[arg-type]
