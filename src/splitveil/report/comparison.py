"""The comparison page: what each defence leaks against the accuracy that it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from splitveil.core.errors import InputError
from splitveil.core.records import Comparison, Contender, Estimate, Measured, write_atomically
from splitveil.report import words
from splitveil.report.leakage import PlottedPoint
from splitveil.report.scale import Scale, Tick, round_scale
from splitveil.report.templates import environment

WIDTH, LEFT, RIGHT, TOP, PLOT, FOOT = 480, 44, 18, 16, 260, 44
LEGEND, LETTER = 50 + TOP + PLOT + FOOT, 7.2
"""Where the picture's legend begins, and how wide a letter of it is."""
Measure = Literal["psnr", "ssim"]


@dataclass(frozen=True, slots=True)
class Dot:
    """One defence at one budget. `slot` gives colour and mark; `hollow` is the larger budget's."""

    slot: int
    hollow: bool
    point: PlottedPoint


@dataclass(frozen=True, slots=True)
class Pareto:
    """Leakage against accuracy lost, ready to draw.

    Attributes:
        floors: those that need no features, as lines across; the others are of the undefended split's features.
        front: SVG path data of the defences that no other beats.
    """

    title: str
    height: int
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    floors: tuple[Tick, ...]
    dots: tuple[Dot, ...]
    front: str


def render_comparison(comparison: Comparison, out: Path | str) -> Path:
    """Write one self-contained HTML page; the answer is `out`.

    Raises:
        InputError: `out` cannot be written.
        MissingExtraError: jinja2 is not installed.
    """
    return _written("comparison.html.j2", comparison, out, words=words, setting=setting, estimate=estimate_text)


def render_picture(comparison: Comparison, out: Path | str) -> Path:
    """Write the page's charts as one SVG picture, for papers and READMEs; the answer is `out`.

    Raises:
        InputError: `out` cannot be written.
        MissingExtraError: jinja2 is not installed.
    """
    labels = slots(comparison)
    columns = max(1, int(980 / (LETTER * max(len("undefended"), *map(len, labels)) + 28)))
    last = LEGEND + 20 * -(-len(labels) // columns)
    return _written("comparison.svg.j2", comparison, out, first=LEGEND, columns=columns, last=last, height=last + 20)


def _written(template: str, comparison: Comparison, out: Path | str, **more: object) -> Path:
    out = Path(out)
    charts = [pareto(comparison, "psnr"), pareto(comparison, "ssim")]
    text = environment().get_template(template).render(c=comparison, charts=charts, slots=slots(comparison), **more)
    try:
        write_atomically(out, text.encode())
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; name a file in a folder that you may write.") from None
    return out


def slots(comparison: Comparison) -> dict[str, int]:
    """Label -> place among the colours and marks, the undefended split first."""
    return {label: k for k, label in enumerate(dict.fromkeys(c.label for c in comparison.contenders))}


def pareto(comparison: Comparison, measure: Measure) -> Pareto:
    """Draw one metric: accuracy lost to the right, leakage upwards, so that the best defence stands bottom left."""
    found = [(c, c.measured) for c in comparison.contenders if c.measured]
    levels = [(f.attack, _of(f, measure).mean) for f in comparison.floors if f.free]
    ends = [v for _, m in found for v in _ends(_of(m, measure))] + [v for _, v in levels]
    lost = [v for _, m in found for v in _ends(m.lost)]
    base = TOP + PLOT
    y = round_scale([*ends, min(ends) - (0.5 if measure == "psnr" else 0.02)], base, TOP)
    x = round_scale([*lost, 0.0, max([1.0, *comparison.drops])], LEFT + 6, WIDTH - RIGHT - 6)
    places, most = slots(comparison), max(comparison.drops, default=0.0)
    dots = tuple(
        Dot(places[c.label], len(comparison.drops) > 1 and c.drop == most, _point(c, m, measure, x, y))
        for c, m in found
    )
    return Pareto(
        "PSNR of the worst case, dB" if measure == "psnr" else "SSIM of the worst case",
        base + FOOT,
        base,
        tuple(x.ticks()),
        tuple(y.ticks()),
        tuple(Tick(y(v), f"{words.attack_label(attack)} {_number(v, measure)}") for attack, v in levels),
        dots,
        _front([(m.lost.mean, _of(m, measure).mean) for c, m in found if c.defends or c.drop is None], x, y),
    )


def setting(contender: Contender) -> str:
    """``sigma = 0.5``; empty where nothing was tuned."""
    return f"{contender.knob} = {contender.value:g}" if contender.value is not None else ""


def estimate_text(estimate: Estimate, digits: int) -> str:
    """The mean; the interval stands below it."""
    return words.signed(estimate.mean, digits)


def _of(record: object, measure: Measure) -> Estimate:
    found: Estimate = getattr(record, measure)
    return found


def _ends(estimate: Estimate) -> list[float]:
    """The mean and what was measured: intervals of few seeds would flatten the chart."""
    return [estimate.mean, *estimate.values]


def _point(contender: Contender, m: Measured, measure: Measure, x: Scale, y: Scale) -> PlottedPoint:
    value = _of(m, measure)
    at_x, at_y = x(m.lost.mean), y(value.mean)
    whisker = ""
    if value.interval:
        low, high = (round(y(end) - at_y, 2) for end in value.interval)
        whisker = f"M0,{low}V{high}M-3,{low}H3M-3,{high}H3"
    if m.lost.interval:
        left, right = (round(x(end) - at_x, 2) for end in m.lost.interval)
        whisker += f"M{left},0H{right}M{left},-3V3M{right},-3V3"
    where = "undefended" if contender.drop is None else f"within {contender.drop:g} points"
    number, lost = _number(value.mean, measure), words.signed(m.lost.mean, 2)
    note = f"{contender.label}, {where}: {number}, {lost} points lost on test images"
    return PlottedPoint(at_x, at_y, note, "", 0.0, whisker)


def _number(value: float, measure: Measure) -> str:
    return words.decibels(value) if measure == "psnr" else words.similarity(value)


def _front(points: Sequence[tuple[float, float]], x: Scale, y: Scale) -> str:
    """Steps through what nothing else beats in both: from the least accuracy lost to the least leakage."""
    front: list[tuple[float, float]] = []
    for lost, leak in sorted(points):
        if not front or leak < front[-1][1]:
            front.append((lost, leak))
    if not front:
        return ""
    path = f"M{x(front[0][0])},{y(front[0][1])}"
    return path + "".join(f"H{x(lost)}V{y(leak)}" for lost, leak in front[1:])
