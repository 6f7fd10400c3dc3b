"""Jobs on a Ray cluster: the same results, whoever is killed."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from splitveil.core.errors import InputError, MissingExtraError, SplitVeilError
from splitveil.lab.jobs import Job, Left, Workers, ray_cluster
from splitveil.lab.store import Store

from .work import added, broken, doubled, job, killed_once, leaving, pid, slow

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Workers]:
    """One on this machine, as ``--workers ray`` starts it."""
    with Workers.of("ray") as workers:
        yield workers


def test_results_come_in_order_and_what_is_left_reaches_others(cluster: Workers, tmp_path: Path) -> None:
    store, x = Store(tmp_path), cluster.share(torch.arange(100_000))
    assert cluster.pool.slots >= 1
    jobs = [job(f"a {i}", doubled, x) for i in range(3)]
    first = job("first", leaving, x)
    last = job("last", added, Left(first), needs=(first,))
    found = cluster.run([*jobs, last, first], store)
    assert all(torch.equal(kept[1]["x"], 2 * torch.arange(100_000)) for kept in found[:3])
    assert found[0][0] == "[1]", "threads"
    assert found[3][0] == f"{3 * torch.arange(100_000).sum()}"
    (_, left), *_ = cluster.spread([job("spread", leaving, x)])
    assert cluster.run([job("of it", added, left)], store)[0][0] == found[3][0]


def test_one_that_fails_and_one_that_is_killed(cluster: Workers, tmp_path: Path) -> None:
    jobs = [job("bad", broken), job("k", killed_once), *(job(f"{i}", pid) for i in range(3))]
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="cannot be done"):
        cluster.run(jobs, store)
    assert [j.facts in store for j in jobs] == [False, True, True, True, True]
    assert (store.find(jobs[1].facts) or ("",))[0] == '"went on"'


def test_a_worker_of_another_version_is_refused(
    cluster: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "fingerprint", lambda: {"code": "another"})
    with pytest.raises(
        SplitVeilError, match=r"this version of SplitVeil \(another\), got one with \w+; install the same"
    ):
        cluster.run([job("a", pid)], Store(tmp_path))


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"splitveil\[ray\]"), Workers.of("ray"):
        pass


@pytest.mark.long
def test_a_node_is_killed(tmp_path: Path) -> None:
    """A second node of the same machine, again and again, while jobs run on it that need what was left on it."""
    from ray.cluster_utils import Cluster

    nodes: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        with Workers.of(f"ray:{nodes.address}") as workers:
            for round_ in range(10):
                node = nodes.add_node(num_cpus=1)
                store, x = Store(tmp_path / f"{round_}"), workers.share(torch.arange(100_000))
                first = [job(f"first {i}", leaving, x) for i in range(4)]
                jobs: list[Job] = [*first, *(job(f"last {i}", slow, Left(f), needs=(f,)) for i, f in enumerate(first))]
                killer = _killing(node, after=0.3 + 0.4 * round_)
                found = workers.run(jobs, store)
                killer.join()
                assert {kept[0] for kept in found[4:]} == {f"{3 * torch.arange(100_000).sum()}"}
    finally:
        nodes.shutdown()


def _killing(node: Any, after: float) -> threading.Thread:
    def kill() -> None:
        time.sleep(after)
        for processes in node.all_processes.values():
            for info in processes:
                if info.process.poll() is None:
                    os.kill(info.process.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_an_address_without_a_cluster_is_a_sentence() -> None:
    with Workers.of("ray:127.0.0.1:1") as workers, pytest.raises(InputError, match="cannot join a Ray cluster at"):
        workers.share(0)
