"""Every number of every cut over one axis of depth, for Plotly."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from splitveil.core.records import CutCurve, Figure, Plan, Zone
from splitveil.report.palette import themes
from splitveil.report.quantities import figure_text, known, ordered

FIRST_SHOWN = ("decoder_mse", "linear_mse", "rc2", "h_x_z", "edge_macs", "payload")
"""What stands there at first; the others are one click away."""
DASHES = ("solid", "dash", "dot")
HUES = ("c0", "c1", "c2", "c3", "c4", "c5", "c6")
ZONE_HUES = ("c2", "c3", "c5", "c0")
ROOM = 100
"""Letters of all the names together that stand upright below the axis."""
WIDE = 20.0
"""Largest over least positive value from which on a curve is drawn on a logarithmic scale."""


def sorted_curves(plan: Plan) -> list[CutCurve]:
    """Shallow first."""
    return sorted(plan.curves, key=lambda c: c.cut.index)


def numbers_of(curve: CutCurve) -> dict[str, Figure]:
    """What was found at a cut, with what the cut itself says: device MACs, and bytes where nobody coded any."""
    exact = {
        "edge_macs": Figure(value=curve.cut.edge_macs, measured=True, source="counted"),
        "payload": Figure(value=curve.cut.bytes_fp32, measured=True, source="raw fp32"),
    }
    return exact | curve.numbers


def names_of(curves: Sequence[CutCurve]) -> list[str]:
    """Each number that some cut has; errors first, then geometry, then costs."""
    names = ordered(name for curve in curves for name in numbers_of(curve))
    first = [name for name in FIRST_SHOWN if name in names]
    return first + [name for name in names if name not in first]


def draw_depth(plan: Plan) -> Any:
    """A ``plotly.graph_objects.Figure``: each number between its own least and largest value, zones shaded."""
    import plotly.graph_objects as go

    light = themes()[0]
    figure = go.Figure(layout={"template": "none"})
    curves = sorted_curves(plan)
    for k, name in enumerate(names_of(curves)):
        found = [numbers_of(curve).get(name) for curve in curves]
        label = known(name).label
        figure.add_scatter(
            x=list(range(len(curves))), y=heights([f.value if f else None for f in found]), name=escape(label),
            customdata=[escape(figure_text(name, f)) if f else "" for f in found], mode="lines+markers",
            hovertemplate="%{fullData.name}: <b>%{customdata}</b><extra></extra>", cliponaxis=False,
            line={"color": light[HUES[k % len(HUES)]], "dash": DASHES[k // len(HUES) % len(DASHES)], "width": 2.2},
            marker={
                "size": 7,
                "symbol": ["circle-open" if f and not f.measured else "circle" for f in found],
            },
            meta={"chip": label}, visible=True if name in FIRST_SHOWN else "legendonly",
        )  # fmt: skip
    _zones(figure, plan.zones, [c.cut.name for c in curves], light)
    _chosen(figure, plan, [c.cut.name for c in curves], light)
    if sum(len(c.cut.name) for c in curves) > ROOM:
        figure.update_xaxes(tickangle=-40)
    figure.update_layout(
        hovermode="x unified",
        xaxis={
            "tickvals": list(range(len(curves))), "ticktext": [escape(c.cut.name) for c in curves],
            "range": [-0.5, len(curves) - 0.5], "showgrid": False, "zeroline": False,
            "linecolor": light["grey"], "tickcolor": light["grey"], "title": {"text": "cut, deeper to the right"},
        },
        yaxis={
            "range": [-0.05, 1.05], "tickvals": [0, 1], "ticktext": ["least", "most"], "gridcolor": light["faint"],
            "zeroline": False, "fixedrange": True,
        },
    )  # fmt: skip
    return figure


def heights(values: Sequence[float | None]) -> list[float | None]:
    """Each value between 0 (the least) and 1 (the largest), by its logarithm where the range is wide; gaps stay.

    Equal values stand halfway.
    """
    kept = [v if v is not None and math.isfinite(v) else None for v in values]
    there = [v for v in kept if v is not None]
    if not there:
        return kept
    if is_wide(kept):
        kept = [math.log(v) if v is not None else None for v in kept]
        there = [math.log(v) for v in there]
    low, span = min(there), max(there) - min(there)
    return [None if v is None else (v - low) / span if span else 0.5 for v in kept]


def is_wide(values: Sequence[float | None]) -> bool:
    """All positive, and the largest many times the least."""
    there = [v for v in values if v is not None and math.isfinite(v)]
    return bool(there) and min(there) > 0 and max(there) > WIDE * min(there)


def reach(zone: Zone, names: Sequence[str]) -> tuple[float, float] | None:
    """Where a zone begins and ends on the axis; to the last cut where it names none. None: no zone, or unknown cuts."""
    if zone.first not in names:
        return None
    first = names.index(zone.first)
    last = names.index(zone.last) if zone.last in names else len(names) - 1
    return first - 0.5, max(first, last) + 0.5


def zone_hue(place: int) -> str:
    """Name of the colour of the zone at that place."""
    return ZONE_HUES[place % len(ZONE_HUES)]


def _zones(figure: Any, zones: Sequence[Zone], names: Sequence[str], light: dict[str, str]) -> None:
    """Shade with a bar on top, one a method: a full bar where decoders agree, a thin one elsewhere."""
    drawn = 0
    for k, zone in enumerate(zones):
        if (ends := reach(zone, names)) is None:
            continue
        hue, top = light[zone_hue(k)], 1.02 + 0.035 * drawn
        place = {"type": "rect", "xref": "x", "yref": "paper", "x0": ends[0], "x1": ends[1], "line": {"width": 0}}
        figure.add_shape(**place, y0=0, y1=1, fillcolor=hue, opacity=0.08, layer="below")
        figure.add_shape(**place, y0=top, y1=top + (0.022 if zone.verified else 0.01), fillcolor=hue, opacity=0.9)
        drawn += 1


def _chosen(figure: Any, plan: Plan, names: Sequence[str], light: dict[str, str]) -> None:
    if plan.recommended is None or plan.choices[plan.recommended].cut not in names:
        return
    at = names.index(plan.choices[plan.recommended].cut)
    line = {"color": light["ink"], "width": 1.5, "dash": "dash"}
    figure.add_shape(type="line", x0=at, x1=at, yref="paper", y0=0, y1=1, line=line)
    right = at > (len(names) - 1) / 2
    figure.add_annotation(
        x=at, y=0, yref="paper", text="<b>recommended</b>", showarrow=False, yanchor="bottom",
        xanchor="right" if right else "left", xshift=-5 if right else 5, font={"color": light["ink"], "size": 13},
        bgcolor=light["paper"], opacity=0.85,
    )  # fmt: skip
