"""An audit says the same, whoever does its work."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock

import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.core.records import Card
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.outcome import Audit
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.cut import trace
from splitveil.lab.export import save
from splitveil.lab.export.quantizing import write_quantized
from splitveil.lab.jobs import Shared, Workers
from splitveil.lab.jobs.pool import Inline
from splitveil.lab.jobs.processes import Processes
from splitveil.lab.models.loader import load_model
from splitveil.lab.restoring import restore_shipped
from splitveil.lab.store import Kept

from .conftest import Trained

Kind = Callable[[Trained, Path], Subject]
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


@pytest.mark.long
def test_records_are_the_same_on_ray(trained: Trained, tmp_path: Path) -> None:
    pytest.importorskip("ray")

    def run(workers: int | str, folder: str) -> Audit:
        subject = Subject.of_split(trained.protected("relu3", "none", "uniform"), model="small", weights="test")
        return audit(
            subject, trained.data, suite=SUITE, n=20, aux_n=80, workers=workers, threads=1, out=tmp_path / folder
        )

    assert same(run(1, "alone"), run("ray", "shared"))


@pytest.mark.parametrize("defense", [pytest.param("none", marks=pytest.mark.long), "noise:sigma=0.3"])
def test_records_are_the_same_for_every_worker(trained: Trained, two: Workers, defense: str, tmp_path: Path) -> None:
    def run(workers: int | Workers, folder: str) -> Audit:
        subject = Subject.of_split(trained.protected("relu3", defense, "uniform"), model="small", weights="test")
        return audit(subject, trained.data, suite=SUITE, n=20, aux_n=80, workers=workers, out=tmp_path / folder)

    alone, shared = run(1, "alone"), run(two, "shared")
    assert any("reads" in r.evidence for r in alone.card.rows), "what depends on who made a thing is among it"
    assert same(alone, shared)
    assert not list((tmp_path / "shared").rglob("*.work"))
    assert not list((tmp_path / "shared").rglob("*.lock"))


def by_file(trained: Trained, folder: Path) -> Subject:
    """A net from a user's file, which imports another one beside it."""
    (folder / "beside_w19.py").write_text(
        "from torch import nn\n\nclass Block(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.conv = nn.Conv2d(1, 4, 3)\n"
        "    def forward(self, x):\n        return self.conv(x).relu()\n"
    )
    (folder / "own.py").write_text(
        "from beside_w19 import Block\nfrom torch import nn\n\n"
        "def make():\n    return nn.Sequential(Block(), nn.Flatten(), nn.Linear(144, 10))\n"
    )
    net = load_model(f"{folder / 'own.py'}:make", shape=trained.data.shape, classes=10, weights=None).model
    traced = trace(net, torch.zeros(2, *trained.data.shape))
    return Subject.of_model(traced, [traced.cuts()[0].name], model="own", weights="random")


class Looping(nn.Module):
    """`torch.fx` cannot follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(x.shape[1] + 1):
            x = self.conv(x).relu()
        logits: Tensor = self.head(x.flatten(1))
        return logits


def by_export(trained: Trained, _: Path) -> Subject:
    traced = trace(Looping(), torch.zeros(2, *trained.data.shape))
    return Subject.of_model(traced, [traced.cuts()[-1].name], model="looping", weights="random")


def by_graph(trained: Trained, folder: Path) -> Subject:
    floats = save(
        trained.protected("relu2", "none", "raw"), folder / "b", name="b", model_spec="small",
        image_shape=trained.data.shape, classes=trained.data.classes,
    )  # fmt: skip
    shipped = restore_shipped(write_quantized(floats, trained.data, folder / "q", n=64))
    return Subject.of_shipped(shipped, torch.from_numpy(trained.data.test.x), model="small", weights="8 bits")


def outside(subject: Subject, x: Tensor, _: Path | None) -> Kept:
    with torch.no_grad():
        logits, features = subject.tap(x)
        sent = [c.protected.sent(x) for c in subject.configurations]
    return "{}", {f"{k}": t for k, t in enumerate([logits, *features, *sent])}


@pytest.mark.parametrize("kind", [by_file, by_export, by_graph])
def test_what_is_audited_reaches_a_worker(trained: Trained, two: Workers, tmp_path: Path, kind: Kind) -> None:
    subject, x = kind(trained, tmp_path), torch.rand(5, *trained.data.shape)
    there = two.pool.submit(outside, (two.reached(subject), x), None).result().kept[1]
    here = outside(subject, x, None)[1]
    assert all(torch.equal(there[k], here[k]) for k in here)


class Refusing(Inline):
    """Workers that cannot be reached."""

    local = False

    def share(self, value: object) -> Shared:
        raise InputError("no cluster there; start one.")


def test_workers_that_cannot_be_reached_end_it(trained: Trained) -> None:
    with pytest.raises(InputError, match="no cluster there"):
        audit(
            trained.subject("relu3"), trained.data, suite=custom_suite([]), n=20, aux_n=40, workers=Workers(Refusing())
        )


def test_what_cannot_be_sent_is_said_and_done_here(trained: Trained, two: Workers) -> None:
    def run(workers: int | Workers, subject: Subject) -> Audit:
        return audit(subject, trained.data, suite=custom_suite([]), n=20, aux_n=40, workers=workers)

    holding = trained.subject("relu3")
    object.__setattr__(holding.tap, "lock", Lock())
    found = run(two, holding)
    assert [n for n in found.card.notes if "cannot be sent to workers (cannot pickle" in n]
    assert found.card.rows[0].psnr == run(1, trained.subject("relu3")).card.rows[0].psnr
