"""What a plan's choices leak against the accuracy that they cost, for Plotly."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from splitveil.core.records import Choice, Figure, Plan
from splitveil.report.palette import Colours, depth_colours, themes
from splitveil.report.quantities import LEAKAGE, excess_text, figure_line, figure_text, known, ordered

SMALLEST, LARGEST, RING = 9.0, 30.0, 9.0
"""Diameters of marks in pixels, and what a ring adds."""
FADED = 0.4
FLOOR = "_floor"
"""Ending of a figure that says what an adversary guesses without inverting: ``ssim_floor``."""
OTHERS = "without splitting"
"""What the alternatives are called together."""
Figures = dict[str, Figure]
Placed = tuple[Choice, tuple[float, float]]


def measures(plan: Plan) -> list[str]:
    """Which leakage there is to draw: what the budget limits first."""
    there = [m for m in LEAKAGE if any(_place(plan, c.figures, m) for c in plan.choices)]
    return sorted(there, key=lambda m: m not in plan.budget.leakage)


def cuts_of(plan: Plan) -> list[str]:
    """The choices' cuts, shallow first as far as that is known."""
    depth = {name: k for k, name in enumerate(c.cut.name for c in sorted(plan.curves, key=lambda c: c.cut.index))}
    macs = {c.cut: c.figures["edge_macs"].value for c in plan.choices if "edge_macs" in c.figures}
    names = dict.fromkeys(c.cut for c in plan.choices)
    return sorted(names, key=lambda name: (depth.get(name, len(depth)), macs.get(name, 0.0)))


def draw_pareto(plan: Plan, measure: str) -> Any:
    """A ``plotly.graph_objects.Figure``: accuracy lost to the right, leakage upwards, so the best stand bottom left.

    Size says the bytes sent (area), colour the depth of the cut; hollow marks are estimates, faded ones break a limit.
    """
    import plotly.graph_objects as go

    light = themes()[0]
    figure = go.Figure(layout={"template": "none"})
    placed = [(c, at) for c in plan.choices if (at := _place(plan, c.figures, measure))]
    most = max((c.figures["payload"].value for c, _ in placed if "payload" in c.figures), default=0.0)
    _front(figure, placed, measure, light)
    for cut, (colour, _) in zip(cuts_of(plan), depth_colours(len(cuts_of(plan))), strict=True):
        # Apart, because a trace has one opacity, and Plotly draws bars of length 0 that would cross hollow marks.
        for kept, sure in ((False, False), (False, True), (True, False), (True, True)):
            own = [
                (c, at) for c, at in placed if c.cut == cut and (not c.broken, is_measured(c, measure)) == (kept, sure)
            ]
            if own:
                _marks(figure, own, measure, colour, most, 0.95 if kept else FADED)
    _others(figure, plan, measure, light)
    _ring(figure, plan, measure, most, light)
    _lines(figure, plan, measure, placed, light)
    return figure


def is_measured(choice: Choice, measure: str) -> bool:
    """Both of its places in the chart were measured."""
    drop = choice.figures.get("accuracy_drop") or choice.figures.get("accuracy")
    return choice.figures[measure].measured and drop is not None and drop.measured


def hover(choice: Choice) -> str:
    """All that is known of a choice, in the few tags that Plotly reads; what names contain is escaped."""
    over = [f"breaks a limit: {known(name).label}, {excess_text(by)}" for name, by in choice.broken.items()]
    lines = [figure_line(name, choice.figures[name]) for name in ordered(choice.figures)]
    notes = [choice.note] if choice.note else []
    return "<br>".join([f"<b>{escape(choice.label)}</b>", *(escape(line) for line in [*lines, *over, *notes])])


def _marks(figure: Any, own: Sequence[Placed], measure: str, colour: str, most: float, opacity: float) -> None:
    cut, sure = own[0][0].cut, is_measured(own[0][0], measure)
    figure.add_scatter(
        x=[x for _, (x, _) in own], y=[y for _, (_, y) in own], mode="markers", name=escape(cut), opacity=opacity,
        error_x=_whiskers([c.figures.get("accuracy_drop") for c, _ in own], colour),
        error_y=_whiskers([c.figures.get(measure) for c, _ in own], colour),
        marker={
            "color": colour, "size": [_diameter(c, most) for c, _ in own], "opacity": 1.0,
            "symbol": "circle" if sure else "circle-open",
            "line": {"color": colour, "width": 0 if sure else 2},
        },
        hovertext=[hover(c) for c, _ in own], hoverinfo="text", meta={"chip": cut}, cliponaxis=False,
    )  # fmt: skip


def _place(plan: Plan, figures: Figures, measure: str) -> tuple[float, float] | None:
    if measure not in figures:
        return None
    if "accuracy_drop" in figures:
        lost = figures["accuracy_drop"].value
    elif "accuracy" in figures:
        lost = 100 * (plan.accuracy - figures["accuracy"].value)
    else:
        return None
    leak = figures[measure].value
    return (lost, leak) if math.isfinite(lost) and math.isfinite(leak) else None


def _diameter(choice: Choice, most: float) -> float:
    payload = choice.figures.get("payload")
    share = payload.value / most if payload and most > 0 else 0.0
    return round(SMALLEST + (LARGEST - SMALLEST) * math.sqrt(max(share, 0.0)), 1)


def _whiskers(figures: Sequence[Figure | None], colour: str) -> dict[str, Any]:
    """Bars from the value to both ends of its interval; none where there is no interval."""
    with_ends = [f if f and f.interval else None for f in figures]
    return {
        "type": "data", "symmetric": False, "thickness": 1, "width": 3, "color": colour, "visible": any(with_ends),
        "array": [max(f.interval[1] - f.value, 0.0) if f and f.interval else None for f in with_ends],
        "arrayminus": [max(f.value - f.interval[0], 0.0) if f and f.interval else None for f in with_ends],
    }  # fmt: skip


def _front(figure: Any, placed: Iterable[Placed], measure: str, light: Colours) -> None:
    """Steps through the measured choices that no other measured one beats in accuracy and leakage together."""
    steps: list[tuple[float, float]] = []
    for lost, leak in sorted(at for c, at in placed if is_measured(c, measure)):
        if not steps or leak < steps[-1][1]:
            steps.append((lost, leak))
    if len(steps) > 1:
        figure.add_scatter(
            x=[x for x, _ in steps], y=[y for _, y in steps], mode="lines", hoverinfo="skip", name="front",
            line={"shape": "hv", "color": light["grey"], "width": 1.4},
        )  # fmt: skip


def _others(figure: Any, plan: Plan, measure: str, light: Colours) -> None:
    found = [(a, at) for a in plan.alternatives if (at := _place(plan, a.figures, measure))]
    if not found:
        return
    notes = [[a.name, *(figure_line(n, a.figures[n]) for n in ordered(a.figures)), a.words] for a, _ in found]
    figure.add_scatter(
        x=[x for _, (x, _) in found], y=[y for _, (_, y) in found], mode="markers", name=OTHERS,
        marker={"symbol": "x-thin", "size": 10, "line": {"width": 2.2, "color": light["soft"]}}, cliponaxis=False,
        hovertext=["<br>".join(escape(part) for part in parts if part) for parts in notes], hoverinfo="text",
        meta={"chip": OTHERS},
    )  # fmt: skip


def _ring(figure: Any, plan: Plan, measure: str, most: float, light: Colours) -> None:
    """A ring with its name about the recommended choice, or about those that come nearest."""
    chosen = [plan.recommended] if plan.recommended is not None else plan.nearest
    text = "recommended" if plan.recommended is not None else "nearest"
    for index in chosen:
        choice = plan.choices[index]
        if at := _place(plan, choice.figures, measure):
            ring = _diameter(choice, most) + RING
            figure.add_scatter(
                x=[at[0]], y=[at[1]], mode="markers", hoverinfo="skip", name=text, cliponaxis=False,
                marker={"symbol": "circle-open", "size": ring, "color": light["ink"], "line": {"width": 2}},
            )  # fmt: skip
            figure.add_annotation(
                x=at[0], y=at[1], text=f"<b>{text}</b>", showarrow=False, yshift=ring / 2 + 9,
                font={"color": light["ink"], "size": 13}, bgcolor=light["paper"], opacity=0.85, borderpad=1,
            )  # fmt: skip


def _lines(figure: Any, plan: Plan, measure: str, placed: Sequence[Placed], light: Colours) -> None:
    """Limits and floors, and ranges that hold them all."""
    lost, leak = plan.budget.accuracy_drop, plan.budget.leakage.get(measure)
    floor = max((c.figures[measure + FLOOR].value for c, _ in placed if measure + FLOOR in c.figures), default=None)
    others = [at for a in plan.alternatives if (at := _place(plan, a.figures, measure))]
    places = [*(at for _, at in placed), *others]
    xs = [0.0, *(x for x, _ in places), *([lost] if lost is not None else [])]
    ys = [*(y for _, y in places), *(v for v in (leak, floor) if v is not None)]
    (left, right), (low, high) = _padded(xs, 0.07), _padded(ys, 0.12)
    if lost is not None or leak is not None:
        figure.add_shape(
            type="rect", x0=left, x1=right if lost is None else lost, y0=low, y1=high if leak is None else leak,
            fillcolor=light["c2"], opacity=0.08, line={"width": 0}, layer="below",
        )  # fmt: skip
    dashed = {"color": light["ink"], "width": 1.3, "dash": "dash"}
    text = {"color": light["soft"], "size": 12}
    if lost is not None:
        figure.add_shape(type="line", x0=lost, x1=lost, y0=low, y1=high, line=dashed, layer="below")
        side, shift = ("left", 4) if lost < (left + right) / 2 else ("right", -4)
        figure.add_annotation(
            x=lost, y=high, text=f"limit {known('accuracy_drop').write(lost)}", showarrow=False, font=text,
            xanchor=side, yanchor="top", xshift=shift,
        )  # fmt: skip
    for value, name, dash in ((leak, "limit", "dash"), (floor, "floor", "dot")):
        if value is not None:
            line = {**dashed, "dash": dash}
            figure.add_shape(type="line", x0=left, x1=right, y0=value, y1=value, line=line, layer="below")
            figure.add_annotation(
                x=right, y=value, text=f"{name} {figure_text(measure, Figure(value=value, measured=True))}",
                showarrow=False, font=text, xanchor="right", yanchor="bottom",
            )  # fmt: skip
    grid = {"gridcolor": light["faint"], "zeroline": False, "linecolor": light["grey"], "tickcolor": light["grey"]}
    figure.update_layout(
        xaxis={**grid, "range": [left, right], "title": {"text": "accuracy lost on test images, points"}},
        yaxis={**grid, "range": [low, high], "title": {"text": escape(known(measure).label)}},
    )  # fmt: skip


def _padded(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = share * (high - low) or 0.5
    return low - room, high + room
