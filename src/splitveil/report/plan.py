"""The plan's page: what is recommended and why, the front, every cut, every number."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from splitveil.core.errors import InputError, MissingExtraError
from splitveil.core.records import Alternative, Choice, Plan, Zone, write_atomically
from splitveil.report import depth_plot, pareto_plot, words
from splitveil.report.gauge import Gauge, gauges
from splitveil.report.palette import depth_colours, themes
from splitveil.report.quantities import (
    LEAKAGE,
    QUANTITIES,
    Quantity,
    excess_text,
    figure_text,
    held,
    known,
    ordered,
    span_text,
)
from splitveil.report.templates import environment

SHOWN = 20
"""Rows of the table of choices that stand there at once; the rest is folded."""


@dataclass(frozen=True, slots=True)
class Chip:
    """One switch beside a chart: what it shows or hides, its style class, dashes and whether it is on."""

    name: str
    style: str
    dashes: int
    on: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class PlanPage:
    """Everything that the template draws. `data`: the figures as JSON that may stand in a script element."""

    plan: Plan
    chosen: tuple[Choice, ...]
    gauges: tuple[Gauge, ...]
    columns: tuple[str, ...]
    measures: tuple[Quantity, ...]
    cut_chips: tuple[Chip, ...]
    curve_chips: tuple[Chip, ...]
    ramp: tuple[tuple[str, str], ...]
    sources: tuple[str, ...]
    data: str
    script: str


def render_plan(plan: Plan, path: Path) -> Path:
    """Write one self-contained, interactive HTML page (about 5 MB: Plotly's script is inside); the answer is `path`.

    Raises:
        InputError: an index of the plan points nowhere, or `path` cannot be written.
        MissingExtraError: jinja2 or plotly is not installed.
    """
    wrong = [k for k in [*plan.nearest, plan.recommended or 0] if not 0 <= k < max(len(plan.choices), 1)]
    if wrong:
        raise InputError(
            f"expected indices below {len(plan.choices)}, got {wrong} among `recommended` and `nearest`; "
            "write the plan anew."
        )
    template = environment().get_template("plan.html.j2")
    text = template.render(
        page=_page(plan), plan=plan, words=words, known=known, figure_text=figure_text, told=told, link=link,
        curves=depth_plot.sorted_curves(plan), curve_names=depth_plot.names_of(plan.curves),
        numbers_of=depth_plot.numbers_of, zone_hue=depth_plot.zone_hue, zone_text=zone_text, status=status,
        excess=excess, excess_text=excess_text, span_text=span_text, ordered=ordered, shown=SHOWN,
        quantities=QUANTITIES, tally=tally(plan), told_by=_told_by(plan),
        verdict=verdict(plan), unmeasured=unmeasured(plan),
    )  # fmt: skip
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; name a file in a folder you may write.") from None
    return path


def unmeasured(plan: Plan) -> bool:
    """Whether a plan had choices left and measured none of them: then it says nothing of the budget."""
    before = plan.measured is None and not plan.finished and tally(plan)[1] == 0
    return plan.recommended is None and (before or not plan.binding_measured)


def verdict(plan: Plan) -> str:
    """The page's first sentence, where nothing is recommended."""
    if unmeasured(plan):
        return "Nothing was measured, so nothing can be said of this budget yet."
    if not plan.finished and tally(plan)[2]:
        return "The time ran out before a choice that keeps this budget was attacked afresh."
    return "Nothing that was tried keeps this budget."


def told(choice: Choice) -> str:
    """``Cut after layer3, defend with vib:beta=0.1, send raw features``."""
    defense = "no defence" if choice.defense == "none" else f"defend with {choice.defense}"
    codec = "send raw features" if choice.codec == "raw" else f"send {choice.codec}"
    return f"Cut after {choice.cut}, {defense}, {codec}"


def status(plan: Plan, index: int) -> tuple[str, ...]:
    """What a choice is: recommended, nearest, on the front, never audited."""
    choice = plan.choices[index]
    said = [
        "recommended" if index == plan.recommended else "",
        "nearest" if plan.recommended is None and index in plan.nearest else "",
        "on the front" if choice.on_front else "",
    ]
    return tuple(filter(None, said))


def link(card: str) -> str:
    """Address of a leakage card beside the page; empty where it is no relative path."""
    plain = card and not card.startswith(("/", "\\")) and ":" not in card
    return quote(card) if plain else ""


def zone_text(zone: Zone) -> str:
    """What one method found, in words; the record's own where it has any."""
    tried = {True: "decoders agree", False: "decoders do not agree", None: "not checked by decoders"}[zone.verified]
    if zone.words:
        return f"{zone.words}; {tried}" if zone.first is not None else zone.words
    if zone.first is None:
        return "no zone"
    facts = [
        f"{zone.first} to {zone.last}" if zone.last and zone.last != zone.first else f"from {zone.first} on",
        tried,
    ]
    if zone.gain is not None:
        facts.append(f"decoder error {zone.gain:.2g} times that of the cut before")
    if zone.edge_share is not None:
        facts.append(f"{words.percent(zone.edge_share)} of all MACs on the device")
    return "; ".join(facts)


def tally(plan: Plan) -> tuple[int, int, int]:
    """(choices, those whose leakage was measured, those of them that keep every limit)."""
    limits = plan.budget.limits()
    measured = [c for c in plan.choices if any(m in c.figures and c.figures[m].measured for m in LEAKAGE)]
    kept = [c for c in measured if not c.broken and all(name in c.figures for name in limits)]
    return len(plan.choices), len(measured), len(kept)


def excess(plan: Plan, alternative: Alternative) -> dict[str, float]:
    """Limits that an alternative breaks, and how far beyond them it is, as a share of the limit."""
    limits, figures = plan.budget.limits(), alternative.figures
    over = {name: held(name, figures[name]) - limit for name, limit in limits.items() if name in figures}
    return {name: by / (abs(limits[name]) or 1.0) for name, by in over.items() if by > 0}


def _told_by(plan: Plan) -> dict[str, str]:
    """Number of a cut -> how it was found, where every cut says the same."""
    found: dict[str, set[str]] = {}
    for curve in plan.curves:
        for name, figure in curve.numbers.items():
            found.setdefault(name, set()).add(figure.source)
    return {name: next(iter(said)) for name, said in found.items() if len(said) == 1 and said != {""}}


def _page(plan: Plan) -> PlanPage:
    picked = [plan.recommended] if plan.recommended is not None else plan.nearest
    chosen = tuple(plan.choices[k] for k in picked)
    columns = tuple(ordered(name for choice in plan.choices for name in choice.figures))
    cuts, measures = pareto_plot.cuts_of(plan), pareto_plot.measures(plan)
    figures = [f for c in plan.choices for f in c.figures.values()]
    figures += [f for curve in plan.curves for f in curve.numbers.values()]
    figures += [f for a in plan.alternatives for f in a.figures.values()]
    ramp = depth_colours(len(cuts))
    plots, script = _figures(plan, measures)
    drawn = {trace["meta"]["chip"] for figure in plots["pareto"] for trace in figure["data"] if "meta" in trace}
    styles = {cut: f"r{k}" for k, cut in enumerate(cuts)} | {pareto_plot.OTHERS: "soft"}
    chips = [Chip(name, style, 0, True) for name, style in styles.items() if name in drawn]
    light, dark = themes()
    colours = {light[name]: dark[name] for name in light} | dict(ramp)
    data = json.dumps({"plots": plots, "dark": colours}).replace("<", "\\u003c")
    return PlanPage(
        plan, chosen, gauges(plan, chosen[0]) if chosen else (), columns, tuple(known(m) for m in measures),
        tuple(chips), _curve_chips(plan), tuple(ramp),
        tuple(dict.fromkeys(f.source for f in figures if not f.measured and f.source)), data, script,
    )  # fmt: skip


def _curve_chips(plan: Plan) -> tuple[Chip, ...]:
    chips = []
    for k, name in enumerate(depth_plot.names_of(plan.curves)):
        found = [depth_plot.numbers_of(curve).get(name) for curve in plan.curves]
        note = "log" if depth_plot.is_wide([f.value if f else None for f in found]) else ""
        hues = len(depth_plot.HUES)
        chips.append(Chip(known(name).label, f"s{k % hues}", k // hues % 3, name in depth_plot.FIRST_SHOWN, note))
    return tuple(chips)


def _figures(plan: Plan, measures: Sequence[str]) -> tuple[dict[str, list[Any]], str]:
    """(place on the page -> figures as plain JSON, Plotly's script)."""
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError:
        raise MissingExtraError(
            "the plan's page needs plotly, which is not here; pip install 'splitveil[lab]'."
        ) from None
    plots = {
        "pareto": [_dressed(pareto_plot.draw_pareto(plan, m)) for m in measures],
        "depth": [_dressed(depth_plot.draw_depth(plan))] if plan.curves else [],
    }
    return plots, get_plotlyjs()


def _dressed(figure: Any) -> Any:
    """The page's own look, as plain JSON."""
    light = themes()[0]
    clear, font = "rgba(0,0,0,0)", 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif'
    axis = {"automargin": True, "title": {"standoff": 8}, "ticks": "outside", "ticklen": 4}
    figure.update_layout(
        paper_bgcolor=clear, plot_bgcolor=clear, showlegend=False, autosize=True, hoverdistance=30,
        font={"family": font, "size": 12.5, "color": light["soft"]}, margin={"l": 48, "r": 16, "t": 34, "b": 48},
        xaxis=axis, yaxis=axis,
        hoverlabel={"bgcolor": light["paper"], "bordercolor": light["grey"], "align": "left",
                    "font": {"family": font, "size": 12.5, "color": light["ink"]}},
    )  # fmt: skip
    return json.loads(figure.to_json())
