"""A number over several seeds as a table shows it: the mean with half its 95 % interval."""

import statistics
from collections.abc import Sequence

from splitveil.lab.auditing.summary import estimate
from splitveil.report.words import NONE


def half_width(values: Sequence[float]) -> float | None:
    """Half the 95 % interval of Student's t; None for fewer than two values."""
    interval = estimate(values).interval if values else None
    return (interval[1] - interval[0]) / 2 if interval else None


def plus_minus(values: Sequence[float | None], text: str = "{:.2f}", images: tuple[float, float] | None = None) -> str:
    """The mean of the values that are there ± `half_width`; of a single one with its interval over images, if any."""
    there = [v for v in values if v is not None]
    if not there:
        return NONE
    mean, half = text.format(statistics.mean(there)), half_width(there)
    if half is not None:
        return f"{mean} ± {text.format(half)}"
    return mean + (f" [{text.format(images[0])}, {text.format(images[1])}]" if images else "")
