import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from splitveil.core.records import Comparison, Contender, Estimate, Floor, Further, Measured, Trial
from splitveil.report.comparison import pareto, render_comparison, render_picture


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
    assert "http://" not in page.replace("http://www.w3.org", ""), "self-contained"
    assert "https://" not in page


def test_marks_stand_where_their_numbers_are(comparison: Comparison) -> None:
    chart = pareto(comparison, "psnr")
    plain, noise, funnel, more = chart.dots
    assert len(chart.dots) == 4, "who missed the budget has no mark"
    assert plain.point.x < funnel.point.x < noise.point.x < more.point.x
    assert plain.point.y < noise.point.y < more.point.y < funnel.point.y < chart.floors[0].at, "paper counts downwards"
    assert [d.hollow for d in chart.dots] == [False, False, False, True]
    assert noise.slot == more.slot != funnel.slot
    assert all(d.point.whisker.count("V") >= 1 for d in chart.dots)


def test_the_picture_is_one_file_with_both_charts_and_every_label(comparison: Comparison, tmp_path: Path) -> None:
    path = render_picture(comparison, tmp_path / "c.svg")
    root = ET.fromstring(path.read_text())
    charts = [child for child in root if child.tag.endswith("svg")]
    width, height = (float(v) for v in root.attrib["viewBox"].split()[2:])
    for chart, x in zip(charts, (10, 510), strict=True):
        assert (float(chart.attrib["x"]), float(chart.attrib["width"])) == (x, 480)
        assert float(chart.attrib["height"]) == float(chart.attrib["viewBox"].split()[3])
        assert sum("hollow" in g.attrib.get("class", "") for g in chart) == 1
    assert (width, height > 400) == (1000, True)
    text = "".join(root.itertext())
    assert all(word in text for word in ("undefended", "noise <b>", "funnel", "Hollow: within 3 points", "mean image"))
    assert "http" not in path.read_text().replace("http://www.w3.org", ""), "self-contained"


def test_the_front_joins_what_nothing_else_beats(comparison: Comparison) -> None:
    """The undefended split, then the funnel; noise at either budget costs more and leaks more."""
    chart = pareto(comparison, "psnr")
    plain, _, funnel, _ = (d.point for d in chart.dots)
    assert chart.front == f"M{plain.x},{plain.y}H{funnel.x}V{funnel.y}"


def test_only_the_floor_that_needs_no_features_holds_for_every_defence(comparison: Comparison, tmp_path: Path) -> None:
    """The others are of the undefended split's features, and a defence's own worst case lies below them at times."""
    found = [(a, estimate(v)) for a, v in (("mean", 12.0), ("class_mean", 16.0), ("nearest", 40.0))]
    several = comparison.model_copy(update={"floors": [Floor(attack=a, psnr=e, ssim=e) for a, e in found]})
    assert [f.free for f in several.floors] == [True, False, False]
    assert pareto(several, "psnr") == pareto(comparison, "psnr"), "no line, and no room for one"
    page = render_comparison(several, tmp_path / "c.html").read_text()
    for label, told in (("class mean", "from the undefended split's features"), ("mean image", "needs no features")):
        assert f"<td>{label}<small>{told}</small></td>" in page
    assert "floors, guesses that need no features" not in page


@pytest.mark.parametrize(
    ("notes", "told"),
    [
        ([], "on a tenth of the training part;"),
        (
            ["judge j", "knobs are tuned by the accuracy on 250 further test images, which is not attacked"],
            "on 250 further test images, which is not attacked;",
        ),
    ],
)
def test_the_page_tells_which_images_settings_were_chosen_by(
    notes: list[str], told: str, comparison: Comparison, tmp_path: Path
) -> None:
    older = comparison.model_dump(exclude={"tuned_by"}) | {"notes": notes}
    page = render_comparison(Comparison.model_validate(older), tmp_path / "c.html").read_text()
    assert f"With seed 0, knobs are tuned by the accuracy {told}" in page
    assert ("tenth of the training" in page) == (not notes)


def test_metrics_that_were_asked_for_have_a_table_with_their_directions(comparison: Comparison, tmp_path: Path) -> None:
    assert "Further metrics" not in render_comparison(comparison, tmp_path / "c.html").read_text()
    extra = {
        "pi@judge": Further(mean=0.4321, interval=(0.4, 0.46), values=[0.43], unit="share", higher_leaks=False),
        "gms": Further(mean=0.5, interval=None, values=[0.5]),
    }
    plain, noise, *rest = comparison.contenders
    assert noise.measured
    noise = noise.model_copy(update={"measured": noise.measured.model_copy(update={"extra": extra})})
    page = render_comparison(comparison.model_copy(update={"contenders": [plain, noise, *rest]}), tmp_path / "c.html")
    table = page.read_text().partition("<h2>Further metrics")[2].partition("<h2>")[0]
    assert '<th class="n">pi<wbr>@judge<br>share<br>less leaks more</th><th class="n">gms</th>' in table
    assert '<td class="n">0.432<small>0.400 to 0.460</small></td><td class="n">0.500</td>' in table
    assert table.count("<tr") == 1 + 2 + 4, "head, budgets and those that were measured"
    assert "edges and texture. More leaks more." in table, "what the words know of a record without directions"


def test_a_record_from_before_directions_were_kept_loads(comparison: Comparison) -> None:
    plain = comparison.undefended.measured
    assert plain
    old = plain.model_dump() | {"extra": {"gms": {"mean": 0.5, "interval": None, "values": [0.5]}}}
    assert Measured.model_validate(old).extra["gms"].higher_leaks is None


def test_ranks(comparison: Comparison) -> None:
    assert [c.label for c in comparison.ranked(1.0)] == ["funnel", "noise <b>", "dropout"]
    assert Comparison.from_json(comparison.to_json()) == comparison
