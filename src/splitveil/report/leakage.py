"""The summary chart: leakage of the worst case against cut depth, above the floors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from splitveil.report.configuration import ConfigurationSection, Entry, Metric
from splitveil.report.folder import Folder
from splitveil.report.scale import Scale, Tick, round_scale
from splitveil.report.words import decibels, percent, similarity, span

WIDTH, LEFT, RIGHT, TOP, PLOT = 480, 44, 18, 28, 230
FLOOR_ROOM = 2.0
"""Decibels below the lowest value, so that the floors' shade stays visible."""
TEXT_ROOM = 26
LABELLED_SERIES = 2
"""Numbers are written beside the points up to this many lines; beyond, they would collide."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line: a configuration followed through the cuts. `slot` gives its colour, mark and dashes everywhere."""

    label: str
    slot: int
    by_cut: Mapping[str, ConfigurationSection]


@dataclass(frozen=True, slots=True)
class PlottedPoint:
    """A value on paper; `note` is its tooltip, `text` is written `offset` below it (above where negative) unless empty.

    `whisker` is SVG path data of its 95 % interval, relative to the point; empty where there is none.
    """

    x: float
    y: float
    note: str
    text: str
    offset: float
    whisker: str = ""

    @property
    def above(self) -> bool:
        """The text stands above the point."""
        return self.offset < 0


@dataclass(frozen=True, slots=True)
class SeriesLine:
    """The points of one series."""

    slot: int
    points: tuple[PlottedPoint, ...]

    @property
    def path(self) -> str:
        """SVG path data."""
        return "M" + "L".join(f"{p.x},{p.y}" for p in self.points)


@dataclass(frozen=True, slots=True)
class Panel:
    """One metric against depth, ready to draw."""

    title: str
    height: int
    bottom: float
    slanted: bool
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    floor: str
    lines: tuple[SeriesLine, ...]


def panel(metric: Metric, series: Sequence[Series], cuts: Sequence[Tick]) -> Panel | None:
    """Draw one metric; None where no row of that metric is there.

    Args:
        metric: which.
        series: the lines.
        cuts: from `places`, shallow first.
    """
    value, digits = (decibels, 1) if metric == "psnr" else (similarity, 2)
    rows = {(s.slot, c): e for s in series for c in cuts if (e := _worst(s, c, metric))}
    worst = {s.slot: [(c, rows[s.slot, c].value(metric)) for c in cuts if (s.slot, c) in rows] for s in series}
    floors = {c: [e.value(metric) for s in series for e in _floors(s, c)] for c in cuts}
    if not any(worst.values()):
        return None
    seen = [v for points in worst.values() for _, v in points] + [max(at) for at in floors.values() if at]
    seen += [end for entry in rows.values() for end in entry.interval(metric) or ()]
    base = TOP + PLOT
    if metric == "ssim":
        y = round_scale([*seen, 0.0], base, TOP, top=1.0)
    else:
        y = round_scale([*seen, min(seen) - FLOOR_ROOM], base, TOP)
    labelled = len(series) <= LABELLED_SERIES
    lines = []
    for s in series:
        points = []
        for cut, v in worst[s.slot]:
            others = [w for slot, at in worst.items() if slot != s.slot for c, w in at if c == cut]
            above = all(v >= other for other in others)
            fits = above or y(v) < base - TEXT_ROOM
            interval = rows[s.slot, cut].interval(metric)
            spread = f" ({span(interval, digits)})" if interval else ""
            note, text = f"{s.label}, {cut.text}: {value(v)}{spread}", value(v) if labelled and fits else ""
            low, high = (round(y(end) - y(v), 2) for end in interval or (v, v))
            offset = min(high - 5, -10.0) if above else max(low + 14, 19.0)
            whisker = f"M0,{low}V{high}M-3,{low}H3M-3,{high}H3" if interval else ""
            points.append(PlottedPoint(cut.at, y(v), note, text, offset, whisker))
        if points:
            lines.append(SeriesLine(s.slot, tuple(points)))
    slanted = sum(len(c.text) for c in cuts) > 44 or len(cuts) > 6
    title = "PSNR of the worst case, dB" if metric == "psnr" else "SSIM of the worst case"
    tops = [(cut.at, y(max(at))) for cut, at in floors.items() if at]
    height = base + (78 if slanted else 44)
    return Panel(title, height, base, slanted, tuple(cuts), tuple(y.ticks()), _area(tops, base), tuple(lines))


def places(folders: Sequence[Folder]) -> list[Tick]:
    """Where each cut of any audit stands on the axis, shallow first, with its edge share where the audits agree."""
    shares: dict[str, list[float]] = {}
    for folder in folders:
        known = {cut.name: cut.edge_share for cut in folder.card.cuts}
        order = sorted(dict.fromkeys(row.cut for row in folder.card.rows), key=lambda name: known.get(name, 2.0))
        for name in order:
            shares.setdefault(name, []).extend([known[name]] if name in known else [])
    names = sorted(shares, key=lambda name: sum(shares[name]) / len(shares[name]) if shares[name] else 2.0)
    x = Scale(0, max(len(names) - 1, 1), LEFT + 34, WIDTH - RIGHT - 34)
    ticks = []
    for i, name in enumerate(names):
        found = shares[name]
        agreed = bool(found) and max(found) - min(found) < 0.01
        at = x(i) if len(names) > 1 else (LEFT + WIDTH - RIGHT) / 2
        ticks.append(Tick(at, name, f"edge {percent(found[0])}" if agreed else ""))
    return ticks


def _worst(series: Series, cut: Tick, metric: Metric) -> Entry | None:
    config = series.by_cut.get(cut.text)
    return config.worst(metric) if config else None


def _floors(series: Series, cut: Tick) -> list[Entry]:
    config = series.by_cut.get(cut.text)
    return config.floors if config else []


def _area(tops: Sequence[tuple[float, float]], base: float) -> str:
    if not tops:
        return ""
    if len(tops) == 1:
        tops = [(tops[0][0] - 40, tops[0][1]), (tops[0][0] + 40, tops[0][1])]
    return f"M{tops[0][0]},{base}L" + "L".join(f"{x},{y}" for x, y in tops) + f"L{tops[-1][0]},{base}Z"
