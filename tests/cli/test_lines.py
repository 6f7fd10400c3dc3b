"""Progress for logs: a line for each task that ended, one a minute while none does; by a clock of the test."""

import pytest

from splitveil.cli.lines import Lines, watched
from splitveil.core.progress import reporting, task


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_a_minute_with_what_is_left() -> None:
    clock, said = Clock(), list[str]()
    lines = Lines(clock, said.append)
    with reporting(lines), task("audit", 3) as outer:
        outer(1)
        with task("decoder relu1", 600) as show:
            for step in range(1, 301):
                clock.now += 1
                show(step, "rate 0.1")
    assert said == [
        "audit: 1/3, 60 s, about 120 s left > decoder relu1: 60/600, 60 s, about 540 s left, rate 0.1",
        "audit: 1/3, 120 s, about 240 s left > decoder relu1: 120/600, 120 s, about 480 s left, rate 0.1",
        "audit: 1/3, 180 s, about 360 s left > decoder relu1: 180/600, 180 s, about 420 s left, rate 0.1",
        "audit: 1/3, 240 s, about 480 s left > decoder relu1: 240/600, 240 s, about 360 s left, rate 0.1",
        "audit: 1/3, 300 s, about 600 s left > decoder relu1: 300/600, 300 s, about 300 s left, rate 0.1",
        "decoder relu1: 300.0 s",
        "audit: 300.0 s",
    ]


def test_work_that_tells_nothing_is_told_of_all_the_same() -> None:
    clock, said = Clock(), list[str]()
    lines = Lines(clock, said.append)
    with reporting(lines), task("linear relu1", 1):
        for _ in range(30):
            clock.now += 5
            lines.look()
    assert said == ["linear relu1: 60 s", "linear relu1: 120 s", "linear relu1: 150.0 s"]
    lines.look()
    assert len(said) == 3, "nothing runs: nothing to say"


def test_a_thread_looks_where_the_work_does_not() -> None:
    clock, said = Clock(), list[str]()
    lines = Lines(clock, said.append, every=0)
    with reporting(lines), watched(lines, 0.001), task("silent", 1):
        while not said:
            pass
    assert said[0] == "silent: 0 s"


def test_short_tasks_hold_the_line_back_and_broken_ones_claim_nothing() -> None:
    clock, said = Clock(), list[str]()
    lines = Lines(clock, said.append)
    with pytest.raises(KeyboardInterrupt), reporting(lines), task("plan", 2), task("plan", 2):  # noqa: PT012
        for k in range(3):
            with task(f"short {k}", 1):
                clock.now += 40
        raise KeyboardInterrupt
    assert said == ["short 0: 40.0 s", "short 1: 40.0 s", "short 2: 40.0 s"]
