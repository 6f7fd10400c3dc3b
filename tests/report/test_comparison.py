from pathlib import Path

import pytest

from splitveil.records import Comparison, Contender, Estimate, Floor, Measured, Trial
from splitveil.report.comparison import pareto, render_comparison


def estimate(mean: float, half: float = 0.5) -> Estimate:
    return Estimate(mean=mean, interval=(mean - half, mean + half), values=[mean, mean])


def measured(lost: float, psnr: float, ssim: float, unreliable: tuple[str, ...] = ()) -> Measured:
    return Measured(
        accuracy=estimate(0.9 - lost / 100, 0.01), lost=estimate(lost), psnr=estimate(psnr), ssim=estimate(ssim, 0.02),
        mse=estimate(0.01, 0.001), strongest={"psnr": "decoder", "ssim": "linear"}, edge_macs=1_000_000,
        edge_params=2000, payload_bytes=800, epoch_ratio=1.25, unreliable=list(unreliable),
    )  # fmt: skip


def contender(label: str, drop: float | None, found: Measured | None, missing: float = 0.0) -> Contender:
    trial = Trial(defense=label, codec="raw", seed=0, epochs=4, seconds=3.0, validation=0.9, strength=0.5)
    return Contender(
        label=label, drop=drop, defense=label, codec="raw", knob="sigma" if drop else "", value=0.5 if drop else None,
        defends=drop is not None, validation=0.9, missing=missing, measured=found, tried=[trial],
    )  # fmt: skip


@pytest.fixture
def comparison() -> Comparison:
    return Comparison(
        model="net", weights="seed 0", data="digits", cut="layer2", codec="raw", suite="smoke-1", threat_model="white",
        private_n=100, seeds=[0, 1], epochs=4, lr=1e-3, trials=6, drops=[1.0, 3.0], hardware="this one", seconds=9.0,
        floors=[Floor(attack="mean", psnr=estimate(12.0), ssim=estimate(0.1, 0.01))],
        contenders=[
            contender("none", None, measured(0.0, 30.0, 0.95)),
            contender("noise <b>", 1.0, measured(0.9, 25.0, 0.8)),
            contender("funnel", 1.0, measured(0.5, 20.0, 0.6, ("few images",))),
            contender("dropout", 1.0, None, 1.5),
            contender("noise <b>", 3.0, measured(2.8, 22.0, 0.7)),
        ],
        findings=["Within 1 point, funnel leaks least."],
    )  # fmt: skip


def test_floors_come_first_then_the_undefended_then_least_leakage(comparison: Comparison, tmp_path: Path) -> None:
    page = render_comparison(comparison, tmp_path / "c.html").read_text()
    table = page.partition("Everything, least leakage first")[2].partition("What was tried")[0]
    words = ["mean image", "undefended", "within 1 point", "funnel", "noise &lt;b&gt;", "misses the budget by 1.50", "within 3 points"]  # fmt: skip # noqa: E501
    places = [table.index(word) for word in words]
    assert places == sorted(places)
    assert "noise <b>" not in page
    assert table.count("do not trust") == 1
    assert "800</td>" in table, "bytes sent"
    assert "Within 1 point, funnel leaks least." in page
    assert "http" not in page.replace("http://www.w3.org", ""), "self-contained"


def test_marks_stand_where_their_numbers_are(comparison: Comparison) -> None:
    chart = pareto(comparison, "psnr")
    plain, noise, funnel, more = chart.dots
    assert len(chart.dots) == 4, "who missed the budget has no mark"
    assert plain.point.x < funnel.point.x < noise.point.x < more.point.x
    assert plain.point.y < noise.point.y < more.point.y < funnel.point.y < chart.floors[0].y, "paper counts downwards"
    assert [d.hollow for d in chart.dots] == [False, False, False, True]
    assert noise.slot == more.slot != funnel.slot
    assert all(d.point.whisker.count("V") >= 1 for d in chart.dots)


def test_the_front_joins_what_nothing_else_beats(comparison: Comparison) -> None:
    """The undefended split, then the funnel; noise at either budget costs more and leaks more."""
    chart = pareto(comparison, "psnr")
    plain, _, funnel, _ = (d.point for d in chart.dots)
    assert chart.front == f"M{plain.x},{plain.y}H{funnel.x}V{funnel.y}"


def test_names_of_floors_stand_clear_of_lines_and_of_each_other(comparison: Comparison) -> None:
    close = [Floor(attack=a, psnr=estimate(v), ssim=estimate(0.1)) for a, v in (("mean", 12.0), ("nearest", 12.4))]
    far = Floor(attack="class_mean", psnr=estimate(16.0), ssim=estimate(0.1))
    floors = pareto(comparison.model_copy(update={"floors": [*close, far]}), "psnr").floors
    low, near, high = floors
    assert near.y < low.y, "paper counts downwards"
    assert max(low.text_y, near.text_y) < near.y, "above both lines of their group"
    assert abs(low.text_y - near.text_y) >= 12
    assert high.text_y == high.y - 4, "one that stands alone keeps its name beside it"


def test_ranks(comparison: Comparison) -> None:
    assert [c.label for c in comparison.ranked(1.0)] == ["funnel", "noise <b>", "dropout"]
    assert Comparison.from_json(comparison.to_json()) == comparison
