"""The page's rows for label attacks: their accuracy against chance."""

from collections.abc import Sequence
from dataclasses import dataclass

from splitveil.core.records import LabelRow
from splitveil.report.configuration import ConfigurationSection
from splitveil.report.scale import Scale

WIDTH, EDGE = 120, 5


@dataclass(frozen=True, slots=True)
class LabelGauge:
    """One label row and its place on a gauge from 0 to 1: chance, accuracy and its 95 % interval."""

    cut: str
    config: str
    row: LabelRow
    chance: float
    accuracy: float
    span: tuple[float, float] | None


def readings(configs: Sequence[ConfigurationSection]) -> list[LabelGauge]:
    """In the order of the configurations, shallow cuts first."""
    x = Scale(0, 1, EDGE, WIDTH - EDGE)
    return [
        LabelGauge(
            config.cut,
            config.label,
            row,
            x(row.chance),
            x(row.accuracy),
            (x(row.accuracy_interval[0]), x(row.accuracy_interval[1])) if row.accuracy_interval else None,
        )
        for config in configs
        for row in config.labels
    ]
