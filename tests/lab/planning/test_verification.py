"""A zone is what attacks confirm: a real audit on both sides of its edge."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import CutError, InputError
from splitveil.core.records import Row
from splitveil.core.records.plan import Zone
from splitveil.lab.auditing import Subject
from splitveil.lab.cut import Traced, trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.planning.verification import verify_zone


class Narrowing(nn.Module):
    """Keeps all of the image for two steps, then eight numbers of it."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(1, 4, 3, padding=1)
        self.act = nn.LeakyReLU(0.5)
        self.flatten = nn.Flatten()
        self.narrow = nn.Linear(256, 8)
        self.same = nn.Linear(8, 8)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.flatten(self.act(self.mix(x)))
        out: Tensor = self.head(self.same(self.narrow(x)))
        return out


@pytest.fixture(scope="module")
def traced() -> Traced:
    torch.manual_seed(0)
    return trace(Narrowing().eval(), torch.zeros(2, 1, 8, 8))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data("digits")


def zone(first: str | None) -> Zone:
    return Zone(first=first, last="same", method="rc2", words="found")


def verified(traced: Traced, data: Dataset, first: str | None, cuts: Sequence[str] | None = None) -> Zone:
    return verify_zone(zone(first), traced, data, cuts=cuts, attack="linear", n=60, seed=1)


def test_the_attack_agrees_where_the_image_is_lost(traced: Traced, data: Dataset) -> None:
    found = verified(traced, data, "narrow")
    assert found.verified is True
    assert found.gain is not None
    assert found.gain > 3
    share = next(c.edge_share for c in traced.cuts() if c.name == "narrow")
    before = next(c.edge_share for c in traced.cuts() if c.name == "act")
    assert found.edge_share == share
    assert found.words.startswith(
        f"transition between act and narrow: error x{found.gain:,.0f} for {100 * (share - before):.0f} points more of "
        f"the MACs on the device, {share:.0%} of all; the attack agrees"
    )
    assert (found.first, found.last, found.method) == ("narrow", "same", "rc2")


def test_it_disagrees_where_nothing_is_lost(traced: Traced, data: Dataset) -> None:
    found = verified(traced, data, "same")
    assert found.verified is False
    assert found.gain == pytest.approx(1, abs=0.1)
    assert "the attack does not agree" in found.words


def test_the_cut_before_is_the_one_before_among_those_looked_at(traced: Traced, data: Dataset) -> None:
    found = verified(traced, data, "same", ["act", "same"])
    assert found.verified is True
    assert found.words.startswith("transition between act and same: ")


def test_no_zone_needs_no_attack(traced: Traced, data: Dataset) -> None:
    nothing = zone(None)
    assert verify_zone(nothing, traced, data, attack="none such") is nothing


def test_bad_input_is_refused(traced: Traced, data: Dataset) -> None:
    with pytest.raises(InputError, match=r"expected a zone with a cut before it, got mix; give the cuts"):
        verified(traced, data, "mix")
    with pytest.raises(CutError, match="nowhere"):
        verified(traced, data, "nowhere")
    with pytest.raises(InputError, match="expected an attack that gives images back, got 'attribute"):
        verify_zone(zone("narrow"), traced, data, attack="attribute:epochs=1", n=30)


class Card:
    """As much of an audit as is read."""

    def __init__(self, rows: list[Row]) -> None:
        self.card, self.rows = self, rows


def faked(monkeypatch: pytest.MonkeyPatch, errors: list[Row], seconds: float = 0) -> None:
    """Attacks that take as long and get as far as told."""
    clock = iter(range(100))
    monkeypatch.setattr("splitveil.lab.planning.verification.time.perf_counter", lambda: seconds * next(clock))
    left = iter(errors)

    def audit(subject: Subject, *_: Any, **__: Any) -> Card:
        return Card([next(left).model_copy(update={"cut": cut.name}) for cut in subject.cuts])

    monkeypatch.setattr("splitveil.lab.planning.verification.audit", audit)


def row(mse: float, half: float, **more: Any) -> Row:
    return Row(
        cut="", defense="none", codec="raw", attack="linear", needs=[], n=9, psnr=9, ssim=0, psnr_worst5=9,
        ssim_worst5=0, seconds=1, mse=mse, mse_interval=(mse - half, mse + half), **more,
    )  # fmt: skip


def test_errors_whose_intervals_meet_are_no_agreement(
    traced: Traced, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    faked(monkeypatch, [row(0.01, 0.001), row(0.02, 0.001)])
    assert verified(traced, data, "narrow").verified is True
    faked(monkeypatch, [row(0.01, 0.006), row(0.02, 0.006)])
    assert verified(traced, data, "narrow").verified is False
    faked(monkeypatch, [row(0.01, 0.0001), row(0.0149, 0.0001)])
    assert verified(traced, data, "narrow").verified is False


def test_doubts_about_an_attack_are_told(traced: Traced, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    faked(monkeypatch, [row(0.01, 0.001), row(0.02, 0.001, unreliable=["still improving"])])
    assert verified(traced, data, "narrow").words.endswith("the attack agrees (doubtful: still improving)")


def test_where_time_is_short_the_zone_stays_untried(
    traced: Traced, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    faked(monkeypatch, [row(0.01, 0.001)], 31)
    found = verify_zone(zone("narrow"), traced, data, attack="linear", minutes=1)
    assert (found.verified, found.gain) == (None, None)
    assert found.words == "found; not verified: 1 minutes were over after one decoder"
    faked(monkeypatch, [row(0.01, 0.001), row(0.02, 0.001)], 29)
    assert verify_zone(zone("narrow"), traced, data, attack="linear", minutes=1).verified is True


def test_both_sides_are_kept_and_not_run_again(
    traced: Traced, data: Dataset, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def once() -> Zone:
        return verify_zone(zone("narrow"), traced, data, attack="linear", n=40, out=tmp_path)

    first = once()
    monkeypatch.setattr("splitveil.lab.attacks.linear.Linear.run", None)
    assert once() == first
