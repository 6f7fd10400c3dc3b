"""How per-image scores spread: one small row of bars for each attack, on a common axis."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from splitveil.report.configuration import ConfigurationSection, Entry, Metric
from splitveil.report.folder import Folder
from splitveil.report.scale import Scale, Tick, round_scale
from splitveil.report.words import decibels, similarity, span

WIDTH, LEFT, RIGHT, TOP, ROW, BARS, BINS = 300, 104, 12, 6, 27, 20, 36
LONGEST_LABEL = 17
TRIM = 0.5
"""Per cent of the scores at either end that may lie beyond the axis; they are counted in the outermost bars."""


@dataclass(frozen=True, slots=True)
class HistogramRow:
    """One attack's row: SVG path of its bars, and where its mean and its worst 5 % lie."""

    label: str
    base: float
    path: str
    mean: float
    worst5: float
    is_floor: bool
    is_worst: bool
    note: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """One metric of one configuration, ready to draw."""

    title: str
    slot: int
    height: float
    base: float
    ticks: tuple[Tick, ...]
    rows: tuple[HistogramRow, ...]


def axis(folder: Folder, metric: Metric) -> Scale:
    """The axis that all histograms of one audit share."""
    values = np.concatenate([folder.scores[number, metric] for number in range(len(folder.card.rows))])
    values = values[np.isfinite(values)]
    ends = np.percentile(values, [TRIM, 100 - TRIM]) if len(values) else np.array([0.0, 1.0])
    return round_scale([float(v) for v in ends], LEFT, WIDTH - RIGHT)


def spread(folder: Folder, config: ConfigurationSection, metric: Metric, slot: int, x: Scale) -> Histogram:
    """Draw the histograms of one configuration on the axis `x`, floors first."""
    entries = config.shown_for(metric)
    base = TOP + ROW * len(entries)
    rows = tuple(_bars(folder, e, metric, x, TOP + ROW * (i + 1) - 3) for i, e in enumerate(entries))
    title = "PSNR, dB" if metric == "psnr" else "SSIM"
    return Histogram(title, slot, base + 22, base, tuple(x.ticks(4)), rows)


def _bars(folder: Folder, entry: Entry, metric: Metric, x: Scale, base: float) -> HistogramRow:
    values = np.clip(folder.scores[entry.number, metric], x.low, x.high)
    counts = np.histogram(values, bins=BINS, range=(x.low, x.high))[0]
    row, text = entry.row, decibels if metric == "psnr" else similarity
    mean, worst5 = (row.scores[metric].number(tail=tail) for tail in (False, True))
    interval = span(entry.interval(metric), 1 if metric == "psnr" else 2)
    of_mean = f"{text(mean)} ({interval})" if interval else text(mean)
    label = "worst case" if entry.is_worst else entry.label
    return HistogramRow(
        label=label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…",
        base=base,
        path=_path([float(c) for c in counts], x, base),
        mean=x(mean),
        worst5=x(worst5),
        is_floor=entry.is_floor,
        is_worst=entry.is_worst,
        note=f"{label}: mean {of_mean}, worst 5 % {text(worst5)}, {row.n} images",
    )


def _path(counts: Sequence[float], x: Scale, base: float) -> str:
    tallest, width = max(counts, default=0.0) or 1.0, (x.end - x.start) / BINS
    bars = []
    for i, count in enumerate(counts):
        if count:
            height = max(BARS * count / tallest, 0.8)
            bars.append(f"M{x.start + i * width + 0.3:.1f},{base}v{-height:.1f}h{width - 0.6:.1f}v{height:.1f}z")
    return "".join(bars)
