"""benchmarks/training_speed: the clock stops while a curve is looked at, and the page says what its records say."""

import time
from pathlib import Path

import pytest
import torch
from benchmarks.page import Page
from benchmarks.training_curve import Clock, Curve, Point, curve
from benchmarks.training_speed import text
from benchmarks.training_steps import Steps, Way, plain_gates, raced

from splitveil.lab.cut import trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.defenses.parts.banded import BandedConv2d
from splitveil.lab.models import MODELS
from splitveil.lab.recipe import WhitenetRecipe
from splitveil.wire.codecs import CODECS


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits?size=16&n=60")


def test_a_clock_does_not_count_its_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: now[0])
    monkeypatch.setattr(time, "perf_counter", lambda: 3 * now[0])
    clock = Clock()
    now[0] = 2.0
    with clock.paused():
        now[0] = 7.0
    now[0] = 8.0
    assert clock.read() == (3.0, 9.0)


def test_a_curve_is_a_training_by_its_recipe(digits: Dataset, tmp_path: Path) -> None:
    found = curve("whitenet", WhitenetRecipe(epochs=2, batch=16), digits, 3, tmp_path)
    assert len(found.points) == len(found.losses) == 2
    assert 0 < found.points[0].processor < found.points[1].processor
    assert found.points[1].accuracy == pytest.approx(found.accuracy, abs=0.1)
    assert found.images == len(digits.train)
    assert found.tested == len(digits.test)
    assert "batch=16" in found.recipe


def test_every_way_takes_its_turn() -> None:
    taken = list[str]()
    found = raced({"a": (lambda: taken.append("a"), 8), "b": (lambda: taken.append("b"), 16)})
    assert taken[:4] == ["a", "b", "a", "b"]
    assert found["a"][1] == (1.0, 1.0, 1.0)


def test_plain_gates_answer_as_banded_ones_in_training() -> None:
    net = MODELS.build("whitenet", shape=(3, 16, 16), classes=4)
    split = DEFENSES.build("siftfunnel").install(trace(net, torch.zeros(2, 3, 16, 16)).split("stage1"))
    banded = Protected(split, DEFENSES.build("none"), CODECS.build("raw"))
    plain = plain_gates(banded)
    assert any(isinstance(m, BandedConv2d) for m in banded.modules())
    assert not any(isinstance(m, BandedConv2d) for m in plain.modules())
    x = torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(banded.train().split(x), plain.train().split(x), atol=1e-5)


def of(model: str, seed: int, points: list[Point]) -> Curve:
    return Curve(
        model=model, recipe="", seed=seed, threads=1, images=50_000, tested=10_000, points=points, losses=[1.0, 1.0],
        accuracy=points[-1].accuracy, hardware="a machine", versions={"torch": "2"},
    )  # fmt: skip


def test_the_page_says_when_what_was_reached(tmp_path: Path) -> None:
    page = Page("training-speed", tmp_path)
    ways = [Way(name=n, images=100, factor=(f, f, f), apart=0.0) for n, f in (("old", 1.0), ("new", 1.25))]
    steps = Steps(ways=ways, apart=1e-7, hardware="a machine", versions={})
    early, late = Point(processor=600, wall=1200, accuracy=0.86), Point(processor=1200, wall=2400, accuracy=0.931)
    page.archive.put({"gates": steps, "nets": steps})
    page.archive.put({"whitenet=whitenet seed 0": of("whitenet", 0, [early, late])})
    page.archive.put({"resnet20=usual:epochs=16 seed 0": of("resnet20", 0, [early])})
    told = text(page)
    assert "* whitenet: 93.10 % of the test images after 20.0 minutes of processors: the aim." in told
    assert "| 10 | 86.00 | 86.00 |" in told
    assert "| 20 | 93.10 | 86.00 |" in told
    assert "| 93 % | 20.0 min | not reached |" in told
    assert "| new | 100 | 1.25 [1.25, 1.25] | bit-equal |" in told
