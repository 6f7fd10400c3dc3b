import html
import json
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from splitveil.core.errors import InputError
from splitveil.core.records import Budget, Choice, Cut, CutCurve, Figure, Plan, Zone
from splitveil.report import render_document, render_plan
from splitveil.report.depth_plot import draw_depth, heights, reach
from splitveil.report.palette import depth_colours, themes
from splitveil.report.pareto_plot import FADED, cuts_of, draw_pareto, hover, measures
from splitveil.report.plan import excess, link, tally, zone_text

from .plans import CUTS, make_plan
from .tags import Tags


def shown(page: str) -> str:
    """Without scripts: what is read, not drawn."""
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def embedded(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render_plan(make_plan(), tmp_path_factory.mktemp("plan") / "plan.html").read_text()


def test_the_headline_says_what_why_and_with_which_suite(page: str) -> None:
    text = " ".join(Tags(shown(page)).text.split())
    parts = [
        "Cut after layer3.0, defend with siftfunnel:channels=8, send uniform:bits=8.", "the shallowest cut",
        "audited with the standard suite", "Not measured for it: latency", "What binds: SSIM, worst 5 %",
        "Of 10 choices 6 were measured, and 1 of those keeps every limit", "Leakage against accuracy",
        "What each cut offers", "Every choice", "Without splitting", "How far the estimates can be trusted",
    ]  # fmt: skip
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "The search had not ended" not in text


def test_it_stands_alone_and_every_tag_is_closed(page: str) -> None:
    tags = Tags(shown(page))
    assert not tags.crossed
    assert not tags.open
    outside = [v for tag, name, v in tags.attributes if name in ("src", "href") and not v.startswith("cards/")]
    assert outside == []
    assert not re.search(r"url\(|@import", shown(page))
    assert page.count("plotly.js v") == 1, "the library is inside, once"


def test_a_browser_runs_its_scripts_and_no_other(page: str) -> None:
    policies = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    [policy] = map(html.unescape, policies)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        assert f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in policy
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("style-src")[0]


def test_chips_name_what_is_drawn(page: str) -> None:
    plots = embedded(page)["plots"]
    chips = re.findall(r'data-plot="(\w+)" data-chip="([^"]*)" aria-pressed="(\w+)"', page)
    for name in ("pareto", "depth"):
        drawn = {t["meta"]["chip"] for figure in plots[name] for t in figure["data"] if "meta" in t}
        assert {chip for plot, chip, _ in chips if plot == name} == drawn
    visible = {t["meta"]["chip"]: t["visible"] is True for t in plots["depth"][0]["data"]}
    assert {chip: on == "true" for plot, chip, on in chips if plot == "depth"} == visible
    assert sum(visible.values()) < len(visible)


def test_a_cut_whose_choices_were_excluded_early_has_no_chip(tmp_path: Path) -> None:
    plan = make_plan()
    costs = {"payload": Figure(value=65536, measured=True)}
    early = plan.choices[4].model_copy(update={"cut": "layer1.1", "figures": costs})
    html = render_plan(plan.model_copy(update={"choices": [*plan.choices, early]}), tmp_path / "p.html").read_text()
    assert 'data-chip="layer1.1"' not in html
    assert 'data-chip="layer1.2"' in html
    assert shown(html).count("layer1.1") == 2, "among the cuts and the choices"


def test_every_colour_has_one_for_the_dark_page(page: str) -> None:
    data = embedded(page)
    hues = set(re.findall(r'"(#[0-9a-f]{3,8})"', json.dumps(data["plots"])))
    assert hues <= set(data["dark"])
    assert depth_colours(3)[0] == tuple(side["c1"] for side in themes())
    assert len(set(depth_colours(9))) == 9


def test_marks_stand_at_their_numbers() -> None:
    plan = make_plan()
    figure = draw_pareto(plan, "ssim_worst")
    traces = [t for t in figure.data if t.meta and t.meta["chip"] == "layer2.2"]
    guessed, sure = traces
    assert (list(sure.x), list(guessed.x)) == ([1.9], [2.7])
    assert (sure.marker.symbol, guessed.marker.symbol) == ("circle", "circle-open"), "hollow where nobody measured"
    assert {sure.opacity, guessed.opacity} == {FADED}, "both break a limit"
    assert sure.marker.size[0] > guessed.marker.size[0], "8 KiB against 2 KiB"
    assert list(sure.error_x.array) == [pytest.approx(0.4)]
    assert not guessed.error_x.visible
    both = [t.opacity for t in figure.data if t.meta and t.meta["chip"] == "layer3.0"]
    assert len(both) == 2
    assert FADED in both
    assert max(both) > FADED
    front = next(t for t in figure.data if t.name == "front")
    assert list(zip(front.x, front.y, strict=True)) == [(0.0, 0.981), (0.2, 0.402), (1.3, 0.262), (3.4, 0.181)]
    ring = next(t for t in figure.data if t.name == "recommended")
    assert (ring.x[0], ring.y[0]) == (1.3, 0.262)
    lines = {(s.x0, s.x1) if s.x0 == s.x1 else (s.y0, s.y1) for s in figure.layout.shapes if s.type == "line"}
    assert lines == {(2.0, 2.0), (0.3, 0.3)}


def test_accuracy_alone_places_a_choice_too() -> None:
    plan = make_plan()
    picture = plan.alternatives[1].model_copy(
        update={"figures": {"accuracy": Figure(value=0.911, measured=True), "psnr": Figure(value=40.0, measured=True)}}
    )
    figure = draw_pareto(plan.model_copy(update={"alternatives": [picture]}), "psnr")
    cross = next(t for t in figure.data if t.name == "without splitting")
    assert cross.x[0] == pytest.approx(1.0)
    assert cross.y[0] == 40.0


def test_hover_says_measured_or_estimated_and_escapes() -> None:
    plan = make_plan()
    text = hover(plan.choices[7].model_copy(update={"defense": "<b>x</b>", "note": "a < b"}))
    assert "layer3.0 | &lt;b&gt;x&lt;/b&gt; | uniform:bits=8" in text
    assert "estimated: linear decoder" in text
    assert "bytes sent 4.0 KiB, measured" in text
    assert "breaks a limit: SSIM, worst 5 %, 24 % over" in text
    assert text.endswith("a &lt; b")


def test_depth_has_one_axis_with_true_values_zones_and_the_recommended_cut() -> None:
    figure = draw_depth(make_plan())
    assert list(figure.layout.xaxis.ticktext) == list(CUTS)
    error = next(t for t in figure.data if t.meta["chip"] == "decoder error")
    assert list(error.y) == [None] * 5 + [0.0, 1.0] + [None] * 2, "two cuts have one; gaps stay"
    assert list(error.customdata)[5:7] == ["0.011", "0.034"]
    sent = next(t for t in figure.data if t.meta["chip"] == "bytes sent")
    assert list(sent.customdata)[::4] == ["64.0 KiB", "32.0 KiB", "16.0 KiB"]
    spans = [(s.x0, s.x1) for s in figure.layout.shapes if s.type == "rect" and s.y0 == 0]
    assert spans == [(5.5, 8.5), (4.5, 8.5)], "rc2, within; rank found none"
    (line,) = [s for s in figure.layout.shapes if s.type == "line"]
    assert line.x0 == CUTS.index("layer3.0")


def test_heights() -> None:
    assert heights([2.0, None, 4.0, 3.0, float("nan")]) == [0.0, None, 1.0, 0.5, None]
    assert heights([5.0, 5.0]) == [0.5, 0.5]
    assert heights([1.0, 10.0, 100.0]) == [0.0, 0.5, 1.0], "by the logarithm where the range is wide"
    assert heights([None]) == [None]
    assert reach(Zone(first="gone", method="rc2"), CUTS) is None


def test_where_nothing_fits_the_page_says_what_comes_nearest(tmp_path: Path) -> None:
    html = render_plan(make_plan(feasible=False, finished=False), tmp_path / "p.html").read_text()
    text = " ".join(Tags(shown(html)).text.split())
    assert "Nothing that was tried keeps this budget. Nearest: cut after layer3.0" in text
    assert "Also near: layer3.1 | siftfunnel:channels=4 | uniform:bits=4: accuracy lost 70 % over" in text
    assert "0 of those keep every limit" in text
    assert "The search had not ended" in text
    names = [t.get("name") for t in embedded(html)["plots"]["pareto"][0]["data"]]
    assert names.count("nearest") == 2
    assert "recommended" not in names


def test_a_plan_that_measured_nothing_says_so_and_no_more(tmp_path: Path) -> None:
    whole = make_plan(feasible=False, finished=False, measured=0, binding_measured=False)
    guesses = [
        c.model_copy(update={"card": "", "figures": {n: f.model_copy(update={"measured": False, "interval": None})
                                                     for n, f in c.figures.items()}})
        for c in whole.choices
    ]  # fmt: skip
    plan = whole.model_copy(update={"choices": guesses})
    text = " ".join(Tags(shown(render_plan(plan, tmp_path / "p.html").read_text())).text.split())
    assert "Nothing was measured, so nothing can be said of this budget yet. Nearest by estimates: cut after" in text
    assert "keeps this budget" not in text
    assert "Expected to bind, by estimates alone: SSIM" in text
    assert "expected to bind" in text
    assert "What binds" not in text
    assert "before anything was measured" in text


def test_missing_numbers_leave_gaps_and_no_page_breaks(tmp_path: Path) -> None:
    bare = Choice(cut="a<b", defense="none", codec="raw", figures={"odd_one": Figure(value=1e-3, measured=True)})
    cut = Cut(
        name="a<b", index=1, shape=(4,), bytes_fp32=16, bytes_u8=4, edge_macs=10, cloud_macs=10, edge_params=1,
        cloud_params=1, edge_share=0.5, edge_peak_bytes=1,
    )  # fmt: skip
    plan = Plan(
        model="</script><b>", weights="w", data="d", seed=0, budget=Budget(), device="this machine", link="none",
        suite="smoke", accuracy=0.5, choices=[bare], recommended=0, reason="the only one", hardware="h", seconds=1.0,
        curves=[CutCurve(cut=cut, numbers={})],
    )  # fmt: skip
    page = render_plan(plan, tmp_path / "p.html").read_text()
    tags = Tags(shown(page))
    assert not tags.crossed
    assert "No audit stands behind this choice" in tags.text
    assert "odd one" in tags.text
    assert "take every estimate" in tags.text
    assert "<b>&lt;/script" not in page
    assert "</script><b>" not in page
    assert embedded(page)["plots"]["pareto"] == []
    empty = plan.model_copy(update={"choices": [], "recommended": None, "curves": []})
    assert "nothing was tried" in render_plan(empty, tmp_path / "p.html").read_text()


def test_a_recommended_choice_that_breaks_a_limit_is_called_out(tmp_path: Path, page: str) -> None:
    wrong = make_plan().model_copy(update={"recommended": 1})
    assert "breaks its own budget" in render_plan(wrong, tmp_path / "p.html").read_text()
    assert "breaks its own budget" not in page


def test_long_plans_are_folded(tmp_path: Path) -> None:
    plan = make_plan()
    many = render_plan(plan.model_copy(update={"choices": plan.choices * 3}), tmp_path / "p.html").read_text()
    assert "<summary>10 more</summary>" in many


def test_orders_and_words() -> None:
    plan = make_plan()
    assert cuts_of(plan) == [c for c in CUTS if c in {k.cut for k in plan.choices}]
    assert measures(plan) == ["ssim_worst", "psnr"]
    assert tally(plan) == (10, 6, 1)
    assert excess(plan, plan.alternatives[1]) == pytest.approx({"ssim_worst": 2.1, "latency": 0.22})
    assert zone_text(Zone(first=None, method="rank")) == "no zone"
    assert zone_text(Zone(first="a", last="b", method="rc2", verified=True, gain=3.14, edge_share=0.5)) == (
        "a to b; decoders agree; decoder error 3.1 times that of the cut before; 50.0 % of all MACs on the device"
    )
    assert [link(c) for c in ("cards/0 1/card.json", "javascript:alert(1)", "/etc/x", "")] == [
        "cards/0%201/card.json", "", "", "",
    ]  # fmt: skip


def test_a_written_plan_makes_its_page_again(tmp_path: Path, page: str) -> None:
    make_plan().save(tmp_path / "plan.json")
    assert render_document(tmp_path / "plan.json", tmp_path / "again.html").read_text() == page


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON", None])
def test_other_documents_are_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=r"x\.json"):
        render_document(path, tmp_path / "p.html")
    assert not (tmp_path / "p.html").exists()


def test_an_index_that_points_nowhere_is_refused(tmp_path: Path) -> None:
    for change in ({"recommended": 10}, {"recommended": None, "nearest": [-1]}):
        with pytest.raises(InputError, match="write the plan anew"):
            render_plan(make_plan().model_copy(update=change), tmp_path / "p.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        render_plan(make_plan(), tmp_path / "file" / "p.html")
