"""An audit says the same, whoever does its work."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from splitveil.core.records import Card
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.outcome import Audit
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.jobs import Workers
from splitveil.lab.jobs.processes import Processes

from .conftest import Trained

TINY = "decoder:size=tiny,epochs=1,steps=2"
SUITE = custom_suite(
    [
        TINY, f"mle:steps=2,prior=0.01,rate=0.2,start=[{TINY}]", f"repeat:attack=[{TINY}],k=2", "linear", "completion",
    ]
)  # fmt: skip


@pytest.fixture(scope="module")
def two() -> Iterator[Workers]:
    with Workers(Processes(2, threads=1)) as workers:
        yield workers


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def timeless(card: Card) -> Card:
    rows = [r.model_copy(update={"seconds": 0.0}) for r in card.rows]
    labels = [r.model_copy(update={"seconds": 0.0}) for r in card.inferences]
    return card.model_copy(update={"seconds": 0.0, "rows": rows, "inferences": labels})


def same(a: Audit, b: Audit) -> bool:
    """But for the time it took: rows, scores and pictures."""
    equal = timeless(a.card) == timeless(b.card) and torch.equal(a.inputs, b.inputs)
    scores = all(
        x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)
        for x, y in zip(a.scores, b.scores, strict=True)
    )
    return equal and scores and all(torch.equal(x, y) for x, y in zip(a.samples, b.samples, strict=True))


@pytest.mark.parametrize("defense", ["none", "noise:sigma=0.3"])
def test_records_are_the_same_for_every_worker(trained: Trained, two: Workers, defense: str, tmp_path: Path) -> None:
    def run(workers: int | Workers, folder: str) -> Audit:
        subject = Subject.of_split(trained.protected("relu3", defense, "uniform"), model="small", weights="test")
        return audit(subject, trained.data, suite=SUITE, n=20, aux_n=80, workers=workers, out=tmp_path / folder)

    alone, shared = run(1, "alone"), run(two, "shared")
    assert any("reads" in r.evidence for r in alone.card.rows), "what depends on who made a thing is among it"
    assert same(alone, shared)
    assert not list((tmp_path / "shared").rglob("*.work"))
    assert not list((tmp_path / "shared").rglob("*.lock"))
