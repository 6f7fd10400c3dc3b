"""A whole plan of a small trained net, with attacks of a few steps."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from splitveil.core.errors import CutError, InputError
from splitveil.core.records import Accuracy, Budget, Card, Plan, Role, Zone
from splitveil.device.profiling import find_device, find_link
from splitveil.lab.auditing.suites import Suite, custom_suite
from splitveil.lab.cut import Traced, trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.jobs import Workers
from splitveil.lab.models.loader import load_model
from splitveil.lab.planning import plan
from splitveil.lab.planning.budgets import broken
from splitveil.lab.planning.clock import Clock
from splitveil.lab.planning.measuring import Bench
from splitveil.lab.planning.need import minutes
from splitveil.lab.planning.planner import Planner
from splitveil.lab.planning.space import Space
from splitveil.wire.bundle import Bundle

LITTLE = Suite("little", "1", ("decoder:size=tiny,epochs=1,steps=5",), 100, "a test's")
Planned = Callable[..., Plan]


@pytest.fixture(scope="module")
def data() -> Dataset:
    digits = load_data("digits")
    return Dataset("digits", digits.train.take(np.arange(400)), digits.test.take(np.arange(240)), digits.classes)


@pytest.fixture(scope="module")
def traced(data: Dataset) -> Traced:
    model = load_model("small", shape=data.shape, classes=10, weights=None).model.train()
    x, y = torch.from_numpy(data.train.x).float() / 255, torch.from_numpy(data.train.y)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(12):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return trace(model.eval(), torch.zeros(2, *data.shape))


@pytest.fixture(scope="module")
def planned(traced: Traced, data: Dataset) -> Planned:
    def run(
        out: Path, budget: Budget, *, resume: bool = False, minutes: float | None = None, timed: bool = False
    ) -> Plan:
        device, link, server = (find_device("pi5"), find_link("lte"), find_device("jetson")) if timed else [None] * 3
        return plan(
            traced, data, model="small", weights="a test's", budget=budget, out=out, cuts=["pool2", "pool1"],
            defenses=["none", "noise"], codecs=["uniform:bits=8"], levels=(0.5, 0.9), suite=LITTLE, quick=LITTLE,
            n=20, held_n=120, epochs=1, audits=2, minutes=minutes, curve_n=0, resume=resume,
            device=device, link=link, server=server,
        )  # fmt: skip

    return run


LOOSE = Budget(payload=3000, accuracy_drop=60.0, latency=5.0, leakage={"ssim": 1.0})
BENCHES: list[Bench] = []


@pytest.fixture(scope="module")
def made(planned: Planned, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    out = tmp_path_factory.mktemp("planned") / "p"
    original = Bench.undefended

    def noted(self: Bench, cuts: Sequence[str], suite: Suite) -> tuple[Card, Path]:
        BENCHES.append(self)
        return original(self, cuts, suite)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bench, "undefended", noted)
        return planned(out, LOOSE, timed=True), out


def test_what_is_recommended_was_attacked_afresh_and_ships_with_its_card(made: tuple[Plan, Path]) -> None:
    found, out = made
    assert Plan.load(out / "plan.json") == found
    assert found.recommended == 0
    best = found.choices[0]
    assert not broken(best.figures, LOOSE.limits())
    assert set(LOOSE.limits()) <= set(best.figures)
    card = Card.load(out / best.card)
    assert (card.seed, card.suite) == (1, "little-1"), "another seed than the search's"
    assert best.figures["ssim"].source.startswith("little-1, 20 private images, seed 1")
    row = next(r for r in card.rows if r.attack == "worst_case:ssim")
    assert (best.figures["ssim"].value, best.figures["ssim"].interval) == (row.ssim, row.ssim_interval)
    assert best.figures["accuracy_drop"].value == pytest.approx(100 * (found.accuracy - card.task_accuracy))
    bundle = Bundle.load(out / found.bundle)
    assert (bundle.manifest.cut.name, bundle.manifest.defense, bundle.manifest.codec) == (
        best.cut, best.defense, best.codec,
    )  # fmt: skip
    assert bundle.manifest.task_accuracy == best.figures["accuracy"].value
    assert "binding constraint" in found.reason
    assert (found.measured, found.binding_measured, found.need) == (2, True, None)
    assert best.cut == "pool1", "the least work for the device"


def test_a_limit_on_accuracy_says_what_so_few_images_can_tell(made: tuple[Plan, Path]) -> None:
    """120 test images: one point is one image and a bit."""
    found, out = made
    assert found.tested == Accuracy.of(round(120 * found.accuracy), 120)
    assert found.recommended is not None
    figures = found.choices[found.recommended].figures
    accuracy, drop = figures["accuracy"], figures["accuracy_drop"]
    assert accuracy.interval == Accuracy.of(round(120 * accuracy.value), 120).interval
    assert drop.interval is not None
    assert drop.interval[0] < drop.value < drop.interval[1]
    manifest = Bundle.load(out / found.bundle).manifest
    assert manifest.undefended == found.tested
    assert manifest.tested is not None
    assert manifest.tested.share == pytest.approx(accuracy.value)
    limit = found.budget.accuracy_drop
    assert limit is not None
    half = (drop.interval[1] - drop.interval[0]) / 2
    assert any(note.startswith("few test images: ") for note in found.notes) == (half > limit)
    assert ("do not rule out a loss beyond" in found.reason) == (drop.interval[1] > limit)


def test_the_proxy_is_ranked_over_widths_even_where_they_cost_too_much(
    traced: Traced, data: Dataset, tmp_path: Path
) -> None:
    """Three strengths of one group are attacked, though each misses the accuracy by far."""
    found = plan(
        traced, data, model="small", weights="a test's", budget=Budget(accuracy_drop=0.0), out=tmp_path,
        cuts=["pool2", "pool1"], defenses=["noise"], codecs=["raw"], levels=(0.8, 0.9, 1.0), suite=LITTLE, quick=LITTLE,
        n=20, held_n=120, epochs=0, audits=6, curve_n=0,
    )  # fmt: skip
    (over_widths,) = [c for c in found.checks if c.over == "widths"]
    assert over_widths.n >= 3
    assert over_widths.rho is not None


def test_every_figure_says_whether_it_was_measured(made: tuple[Plan, Path]) -> None:
    found, _ = made
    assert len(found.choices) == 2 * 3
    for c in found.choices:
        assert c.figures["edge_macs"].measured
        assert c.figures["payload"].measured
        assert c.figures["ssim"].measured == bool(c.card)
        assert not c.figures["latency"].measured
        assert all(f.source for f in c.figures.values())
    assert sum(bool(c.card) for c in found.choices) >= 2
    assert sum(not c.card for c in found.choices) >= 1
    assert {c.over for c in found.checks} == {"cuts", "widths", "choices"}
    assert next(c for c in found.checks if c.over == "choices").n >= 3
    assert [a.name for a in found.alternatives] == ["device", "png", "jpeg q95", "jpeg q75"]
    assert found.alternatives[0].figures["payload"].value == 0


def test_resuming_trains_and_attacks_nothing_again(
    made: tuple[Plan, Path], planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, out = made

    def refuse(*_: object, **__: object) -> object:
        raise AssertionError("expected nothing to be done again")

    monkeypatch.setattr("splitveil.lab.comparing.cards.conducted", refuse)
    monkeypatch.setattr("splitveil.lab.comparing.training.protect", refuse)
    untimed = LOOSE.model_copy(update={"latency": None})
    again = planned(out, untimed, resume=True)
    assert [c.label for c in again.choices] == [c.label for c in found.choices]
    assert again.choices[0].figures["ssim"] == found.choices[0].figures["ssim"]
    with pytest.raises(InputError, match="--resume"):
        planned(out, untimed)


@pytest.mark.long
def test_a_plan_with_other_attacks_finds_no_card_of_these(traced: Traced, data: Dataset, tmp_path: Path) -> None:
    """Every suite of the user's choice has the same name; what it asks for decides the card."""

    def attacked(attack: str, *, resume: bool = False) -> list[str]:
        found = plan(
            traced, data, model="small", weights="a test's", budget=Budget(leakage={"ssim": 1.0}), out=tmp_path / "p",
            cuts=["pool1"], defenses=["none"], codecs=["raw"], levels=(0.5,), suite=custom_suite([attack]),
            quick=LITTLE, n=20, held_n=120, epochs=0, audits=1, curve_n=0, resume=resume,
        )  # fmt: skip
        card = Card.load(tmp_path / "p" / found.choices[0].card)
        assert (card.seed, card.suite) == (1, "custom")
        return [r.attack for r in card.rows if r.role is Role.ATTACK]

    assert attacked("linear") == ["linear"]
    assert attacked("positions:size=small,epochs=1,steps=5", resume=True) == ["positions"]
    assert attacked("linear", resume=True) == ["linear"]


def test_a_budget_that_nothing_keeps_is_answered_with_the_nearest(made: tuple[Plan, Path], planned: Planned) -> None:
    _, out = made
    tight = planned(out, Budget(payload=1, leakage={"ssim": 0.9}), resume=True)
    assert tight.recommended is None
    assert not tight.bundle
    assert tight.binding == ["payload"]
    assert (tight.finished, tight.binding_measured, tight.measured, tight.need) == (True, True, 0, None)
    assert "payload 256 B instead of 1 B" in tight.reason
    assert len(tight.choices) == 6
    assert all(c.broken["payload"] > 0 and "ssim" not in c.figures for c in tight.choices), "pruned, never measured"


def test_with_no_time_there_is_a_plan_without_a_recommendation(planned: Planned, tmp_path: Path) -> None:
    found = planned(tmp_path / "p", Budget(leakage={"ssim": 1.0}), minutes=1e-6)
    assert (found.recommended, found.finished) == (None, False)
    assert (found.measured, found.binding_measured) == (0, False)
    assert found.reason.startswith("Nothing was measured: the time ran out before any choice was trained or attacked")
    assert "expected binding constraint, by estimates: " in found.reason
    assert "keeps" not in found.reason
    need = found.need
    assert need is not None
    assert need.training > 0, "timed on a few images, though nothing was trained"
    assert need.audit > 0
    assert need.choices == 2
    assert need.whole >= need.one >= need.training + need.audit + need.fresh
    assert f"give --minutes {minutes(need.whole)} and --resume" in found.reason
    assert "estimated from what was timed in this run" in found.reason
    assert json.loads((tmp_path / "p" / "plan.json").read_text())["finished"] is False


def test_the_search_never_sees_the_images_of_the_fresh_audit(made: tuple[Plan, Path], data: Dataset) -> None:
    bench = BENCHES[0]
    held, fresh = ({i.tobytes() for i in part.x} for part in (bench.held, bench.data.test))
    assert (len(bench.held), len(bench.data.test)) == (120, len(data.test) - 120)
    assert bench.seen.test is bench.held
    assert not held & fresh
    assert made[0].accuracy > 0.2


def test_mistakes_name_their_remedy(traced: Traced, data: Dataset, tmp_path: Path) -> None:
    def asked(budget: Budget, **more: object) -> None:
        plan(traced, data, model="m", weights="w", budget=budget, out=tmp_path / "x", **more)  # type: ignore[arg-type]

    with pytest.raises(InputError, match="--device and --link"):
        asked(Budget(latency=0.1))
    with pytest.raises(CutError, match="Did you mean 'pool1'"):
        asked(Budget(), cuts=["poool1"])
    with pytest.raises(InputError, match="--minutes 20"):
        asked(Budget(), minutes=-1.0)
    assert not (tmp_path / "x").exists()


def test_the_zone_by_radius_is_verified_where_time_is_left(made: tuple[Plan, Path]) -> None:
    bench = BENCHES[0]
    bench.send_to(Workers())  # those of its plan have gone home
    zones = [Zone(first="pool2", method=m) for m in ("rc2", "rank")] + [Zone(first=None, method="rc2")]
    space = Space.of([c for c in bench.traced.cuts() if c.name == "pool2"], ["none"], ["raw"])
    planner = Planner(bench, space, {}, "ssim", LITTLE, Clock(None))
    by_radius, by_rank, absent = planner.zones_verified(zones)
    assert by_radius.verified is not None
    assert by_radius.gain is not None
    assert "pool2" in by_radius.words
    assert by_rank.verified is None
    assert absent == zones[2]
    hurried = Planner(bench, space, {}, "ssim", LITTLE, Clock(1e-9))
    assert hurried.zones_verified(zones) == zones


@pytest.mark.parametrize(
    ("tests", "held_n", "told"),
    [
        (12, None, "at least 60 test images to plan with, got 12; give data with more of them"),
        (12, 30, "at least 60 test images to plan with, got 12"),
        (100, 100, "expected 30 to 99 of the 100 test images for the search, got 100; use --held-n 50"),
    ],
)
def test_too_few_test_images_are_told_before_any_work(
    traced: Traced, data: Dataset, tmp_path: Path, tests: int, held_n: int | None, told: str
) -> None:
    few = Dataset(data.name, data.train, data.test.take(np.arange(tests)), data.classes)
    with pytest.raises(InputError, match=told):
        plan(traced, few, model="small", weights="", budget=Budget(), out=tmp_path / "p", held_n=held_n)
    assert not (tmp_path / "p").exists()
