"""Who goes first where workers are few."""

from functools import partial

from splitveil.lab.jobs import Workers
from splitveil.lab.jobs.turns import PACE, Pace, Turns


def mine(turns: Turns, who: int, longest: float, *, slots: int = 1, alone: bool = False) -> bool:
    with turns.changed:
        return turns.mine(who, Pace(longest), slots, alone=alone)


def busy(slots: int = 1) -> Turns:
    turns = Turns()
    with turns.changed:
        for _ in range(slots):
            turns.begin(alone=False)
    return turns


def test_the_flow_with_the_longest_jobs_goes_first() -> None:
    turns = busy()
    assert not any(mine(turns, who, longest) for who, longest in ((1, 3.0), (2, 60.0), (3, 0.0)))
    turns.end()
    assert not mine(turns, 1, 3.0)
    assert mine(turns, 2, 60.0)
    assert mine(turns, 1, 3.0), "nobody waits with longer ones any more"


def test_equals_hold_nobody_up() -> None:
    turns = busy()
    assert not mine(turns, 1, 3.0)
    assert not mine(turns, 2, 3.0)
    turns.end()
    assert mine(turns, 2, 3.0)


def test_who_withdraws_holds_nobody_up() -> None:
    turns = busy()
    assert not mine(turns, 1, 3.0)
    assert not mine(turns, 2, 60.0)
    turns.withdraw([2])
    turns.end()
    assert mine(turns, 1, 3.0)


def test_who_must_be_alone_waits_for_all_and_keeps_all_out() -> None:
    turns = busy()
    assert not mine(turns, 1, 3.0, slots=2, alone=True)
    turns.end()
    assert mine(turns, 1, 3.0, slots=2, alone=True)
    with turns.changed:
        turns.begin(alone=True)
    assert not mine(turns, 2, 60.0, slots=2)
    turns.end()
    assert mine(turns, 2, 60.0, slots=2)


def test_flows_within_a_flow_have_its_pace() -> None:
    class Elsewhere(Workers):
        inline = False

    workers = Elsewhere()
    inner = lambda: workers.each([PACE.get, PACE.get])  # noqa: E731
    (a, b), (c, d) = workers.each([partial(inner), partial(inner)])
    assert a is b
    assert c is d
    assert isinstance(a, Pace)
    assert a is not c
    assert PACE.get() is None
