"""Words for where jobs run mean the same everywhere, and wrong ones are told in a sentence."""

import pytest
import torch

from splitveil.core.errors import InputError
from splitveil.lab.jobs import Workers, choice
from splitveil.lab.jobs.choice import Choice
from splitveil.lab.jobs.machine import cores
from splitveil.lab.jobs.pool import Inline
from splitveil.lab.jobs.processes import Processes


@pytest.mark.parametrize(
    ("asked", "threads", "found"),
    [
        (1, None, Choice("inline")),
        ("1", 3, Choice("inline", threads=3)),
        (3, None, Choice("processes", 3, 2)),
        ("12", None, Choice("processes", 12, 1)),
        ("2", 5, Choice("processes", 2, 5)),
        ("auto", None, Choice("processes", 4, 1)),
        ("auto", 2, Choice("processes", 3, 2)),
        ("auto", 6, Choice("inline", threads=6)),
        ("ray", None, Choice("ray", threads=1)),
        ("ray://head:10001", 2, Choice("ray", threads=2, address="ray://head:10001")),
        ("ray:10.0.0.1:6379", None, Choice("ray", threads=1, address="10.0.0.1:6379")),
    ],
)
def test_words_share_out_cores_and_memory(
    asked: int | str, threads: int | None, found: Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "cores", lambda: 6)
    monkeypatch.setattr(choice, "memory", lambda: 9 * 2**30)
    assert Choice.of(asked, threads) == found


@pytest.mark.parametrize("asked", ["0", "-1", "two", "", "1.5", "ray://", "ray://head", "ray:6379", "rays", True])
def test_other_words_are_refused(asked: int | str) -> None:
    with pytest.raises(InputError, match=r"expected .* for --workers, got"):
        Choice.of(asked)


def test_threads_are_set_for_the_time_of_the_work() -> None:
    before = torch.get_num_threads()
    with Workers.of(1, threads=before + 1) as workers:
        assert torch.get_num_threads() == before + 1
        assert isinstance(workers.pool, Inline)
        with Workers.of(workers) as same:
            assert same is workers
    assert torch.get_num_threads() == before
    with Workers.of(2) as workers:
        assert isinstance(workers.pool, Processes)
        assert (workers.pool.slots, workers.pool.threads) == (2, max(1, cores() // 2))
    with pytest.raises(InputError, match="at least one thread"), Workers.of(1, threads=0):
        pass
