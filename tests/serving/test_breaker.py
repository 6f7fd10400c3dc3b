import pytest

from splitveil.core.errors import InputError
from splitveil.device.breaker import Breaker


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker(failures=3)
    for _ in range(5):
        assert breaker.admit()
        breaker.failed()
        assert breaker.admit()
        breaker.failed()
        assert breaker.admit()
        breaker.passed()
    assert str(breaker.state) == "closed"
    assert [breaker.failed() for _ in range(4)] == [False, False, True, False]
    assert str(breaker.state) == "open"
    assert not breaker.admit()
    assert 4 < breaker.wait <= 5


def test_one_probe_at_a_time_decides() -> None:
    now = [0.0]
    breaker = Breaker(failures=1, rest=2, clock=lambda: now[0])
    breaker.failed()
    now[0] = 2
    assert str(breaker.state) == "half-open"
    assert [breaker.admit() for _ in range(3)] == [True, False, False]
    assert breaker.failed(), "a failed probe opens it again"
    assert not breaker.admit()
    now[0] = 4
    assert breaker.admit()
    breaker.gave_up()
    assert breaker.admit(), "a probe that was broken off says nothing"
    breaker.passed()
    assert [breaker.admit() for _ in range(3)] == [True] * 3
    assert str(breaker.state) == "closed"


def test_no_failure_or_no_rest_is_refused() -> None:
    for wrong in ({"failures": 0}, {"rest": 0.0}):
        with pytest.raises(InputError, match=r"use Breaker\(\)"):
            Breaker(**wrong)
