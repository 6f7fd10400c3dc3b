"""Each job is done once, whatever happens to its worker and whoever else does the same."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from splitveil.core.errors import SplitVeilError
from splitveil.lab.jobs import Job, Left, Workers
from splitveil.lab.jobs.job import Done, Leaving, Shared
from splitveil.lab.jobs.pool import Inline, Pool, WorkerLostError
from splitveil.lab.jobs.processes import Processes
from splitveil.lab.store import Kept, Store

from .work import Named, added, broken, doubled, job, killed_always, killed_once, leaving, pid


@pytest.fixture(scope="module")
def two() -> Iterator[Workers]:
    with Workers(Processes(2, threads=1)) as workers:
        yield workers


@pytest.fixture(params=["inline", "processes"])
def workers(request: pytest.FixtureRequest, two: Workers) -> Workers:
    return two if request.param == "processes" else Workers(Inline())


def test_results_come_in_order_and_are_kept(workers: Workers, tmp_path: Path) -> None:
    store, x = Store(tmp_path), workers.share(torch.arange(3))
    jobs = [job(f"a {i}", doubled, x if i % 2 else torch.full((2,), i)) for i in range(5)]
    found = workers.run(jobs, store)
    assert [kept[1]["x"].tolist() for kept in found] == [[0, 0], [0, 2, 4], [4, 4], [0, 2, 4], [8, 8]]
    assert all(j.facts in store for j in jobs)
    assert workers.run([job(f"a {i}", broken) for i in range(5)], store)[2][1]["x"].tolist() == [4, 4]
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".safetensors"] * 5, "no locks, no checkpoints"


def test_what_a_job_needs_is_done_before_it(workers: Workers, tmp_path: Path) -> None:
    first = job("first", pid)
    last = job("last", needing, tmp_path / f"{Named('first').name}.safetensors", needs=(first,))
    assert workers.run([last, first], Store(tmp_path))[0][0] == "true"


def needing(path: Path, folder: Path | None) -> Kept:
    return str(path.exists()).lower(), {}


def test_one_that_fails_takes_none_along_but_those_that_need_it(workers: Workers, tmp_path: Path) -> None:
    bad, store = job("bad", broken), Store(tmp_path)
    jobs = [bad, job("worse", broken), job("built on it", pid, needs=(bad,)), *(job(f"{i}", pid) for i in range(3))]
    with pytest.raises(ValueError, match="cannot be done") as raised:
        workers.run(jobs, store)
    assert raised.value.__notes__ == ["1 other job failed as well: worse."]
    assert [j.facts in store for j in jobs] == [False, False, False, True, True, True]


def test_a_worker_that_is_killed_is_replaced(two: Workers, tmp_path: Path) -> None:
    jobs = [job("k", killed_once), *(job(f"{i}", pid) for i in range(3))]
    assert two.run(jobs, Store(tmp_path))[0][0] == '"went on"'


def test_a_job_that_no_worker_survives_is_given_up(two: Workers, tmp_path: Path) -> None:
    store = Store(tmp_path)
    jobs: list[Job] = [job("k", killed_always), *(job(f"{i}", pid) for i in range(3))]
    with pytest.raises(WorkerLostError, match="ended in the middle"):
        two.run(jobs, store)
    assert all(j.facts in store for j in jobs[1:])
    assert isinstance(WorkerLostError(""), SplitVeilError)


def test_what_another_run_has_under_way_is_not_done_twice(workers: Workers, tmp_path: Path) -> None:
    store, other = Store(tmp_path), Store(tmp_path)
    jobs = [job("theirs", broken), job("ours", pid)]
    claim = other.claim(jobs[0].facts)
    assert claim is not None
    assert store.claim(jobs[0].facts) is None

    def theirs() -> None:
        other.keep(jobs[0].facts, '"theirs"', {})
        claim.release()

    workers.pool, told = Telling(workers.pool, theirs), workers.pool
    try:
        assert workers.run(jobs, store)[0][0] == '"theirs"'
    finally:
        workers.pool = told


class Telling:
    """A pool that says when it gets a job."""

    def __init__(self, inner: Pool, then: Callable[[], None]) -> None:
        self.inner, self.then = inner, then
        self.slots, self.local, self.share, self.close = inner.slots, inner.local, inner.share, inner.close
        self.forget = inner.forget

    def submit(self, call: Callable[..., Kept | Leaving], args: tuple[Any, ...], folder: Path | None) -> "Future[Done]":
        self.then()
        return self.inner.submit(call, args, folder)


def test_flows_ask_for_jobs_as_they_go(workers: Workers, tmp_path: Path) -> None:
    store = Store(tmp_path)

    def flow(name: str) -> list[int]:
        x = torch.ones(1)
        for step in range(3):
            x = workers.run([job(f"{name} {step}", doubled, x)], store)[0][1]["x"]
        return [int(x)]

    assert workers.each([lambda: flow("a"), lambda: flow("b")]) == [[8], [8]]


class Stuck:
    """Begins everything and ends nothing, until it is closed."""

    slots, local = 2, False

    def __init__(self) -> None:
        self.begun, self.futures = threading.Semaphore(0), list[Future[Done]]()

    def share(self, value: object) -> Shared:
        raise AssertionError

    def forget(self, shared: Iterable[Shared]) -> None:
        """Nothing is shared."""

    def submit(self, call: Callable[..., Any], args: tuple[Any, ...], folder: Path | None) -> "Future[Done]":
        self.futures.append(Future())
        self.begun.release()
        return self.futures[-1]

    def close(self) -> None:
        for future in self.futures:
            future.set_exception(WorkerLostError("killed"))


def test_flows_end_where_the_workers_are_stopped(tmp_path: Path) -> None:
    """As after Ctrl-C: the thread that waits for them is elsewhere already."""
    pool, ended = Stuck(), list[str]()
    workers = Workers(pool)

    def asking() -> None:
        with pytest.raises(WorkerLostError, match="were stopped") as raised:
            workers.each([partial(workers.run, [job(f"{i}", pid)], Store(tmp_path)) for i in range(2)])
        ended.append("".join(raised.value.__notes__))

    thread = threading.Thread(target=asking)
    thread.start()
    assert all(pool.begun.acquire(timeout=60) for _ in range(2))
    workers.close()
    thread.join(60)
    assert ended == ["1 more went wrong: the workers were stopped before all was done"]
    assert len(pool.futures) == 2, "nothing is tried again"


def test_results_at_a_url_are_kept_by_whoever_asked(workers: Workers) -> None:
    """Workers need no access to it: results come back to the process that asked."""
    store = Store("memory://w19/jobs")
    jobs = [job(f"at a url {workers.inline} {i}", doubled, torch.full((2,), i)) for i in range(2)]
    assert workers.run(jobs, store)[1][1]["x"].tolist() == [2, 2]
    again = [job(f"at a url {workers.inline} {i}", broken) for i in range(2)]
    assert Workers().run(again, Store("memory://w19/jobs"))[1][1]["x"].tolist() == [2, 2]


def test_what_a_job_leaves_reaches_those_that_need_it(workers: Workers, tmp_path: Path) -> None:
    x, store = workers.share(torch.arange(100_000)), Store(tmp_path)
    first = job("first", leaving, x)
    last = job("last", added, Left(first), needs=(first,))
    (_, left), *_ = workers.spread([job("spread", leaving, x)])
    total = str(int(3 * torch.arange(100_000).sum()))
    assert workers.run([last, first, job("of it", added, left)], store)[0][0] == total
    workers.forget([left])
    # What was found finished left nothing.
    assert workers.run([first, job("later", nothing, Left(first), needs=(first,))], store)[1][0] == "true"


def nothing(left: object, _: Path | None) -> Kept:
    return str(left is None).lower(), {}
