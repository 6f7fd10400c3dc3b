"""A plan's budget: limits read from text, held against figures, and which of them binds."""

import math
import re
from collections.abc import Mapping, Sequence

from splitveil.core.errors import InputError
from splitveil.core.records import LEAKAGE, LIMITS, STANDING, Budget, Figure

COUNTS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
BYTES = {"": 1.0, "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2.0**10, "MIB": 2.0**20, "GIB": 2.0**30}
SECONDS = {"": 1.0, "S": 1.0, "MS": 1e-3, "US": 1e-6}
NUMBER = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*")

Figures = Mapping[str, Figure]


def parse_count(text: str, flag: str) -> int:
    """``50M`` multiply-accumulates.

    Raises:
        InputError: no number, or no such unit.
    """
    return round(_parsed(text, flag, COUNTS, "50M"))


def parse_bytes(text: str, flag: str) -> int:
    """``2MB``, ``4KiB``; without a unit, bytes. K is 1,000 and Ki 1,024.

    Raises:
        InputError: no number, or no such unit.
    """
    return round(_parsed(text, flag, BYTES, "4KB"))


def parse_seconds(text: str, flag: str) -> float:
    """``50ms``; without a unit, seconds.

    Raises:
        InputError: no number, or no such unit.
    """
    return _parsed(text, flag, SECONDS, "50ms")


def check_budget(budget: Budget) -> None:
    """Refuse what no split could be held against.

    Raises:
        InputError: a limit that is negative, not finite or not known.
    """
    if unknown := sorted(set(budget.leakage) - set(LEAKAGE)):
        raise InputError(f"expected leakage of {', '.join(LEAKAGE)}, got {unknown[0]!r}; leave it out.")
    for name, value in budget.limits().items():
        if not math.isfinite(value) or (value < 0 and name not in LEAKAGE):
            raise InputError(f"expected a limit of at least 0 for {name}, got {value:g}; give another number.")


def upper(name: str, figure: Figure) -> float:
    """What is held against a limit: of measured leakage the upper end of its interval, else the value."""
    return figure.interval[1] if name in LEAKAGE and figure.interval else figure.value


def broken(figures: Figures, limits: Mapping[str, float]) -> dict[str, float]:
    """Limit -> how far beyond it, as a share of the limit (of 1 where the limit is 0); figures not known break none."""
    return {
        name: (upper(name, figures[name]) - limit) / (abs(limit) or 1.0)
        for name, limit in limits.items()
        if name in figures and upper(name, figures[name]) > limit
    }


def kept(figures: Figures, limits: Mapping[str, float]) -> bool:
    """Whether every limit was measured or counted, and holds."""
    return all(name in figures and figures[name].measured for name in limits if name != "latency") and all(
        name in figures and upper(name, figures[name]) <= limit for name, limit in limits.items()
    )


def binding(choices: Sequence[Figures], limits: Mapping[str, float]) -> list[str]:
    """The limits that exclude the most choices which keep all others; where none does so alone, those broken most."""
    wrong = [set(broken(figures, limits)) for figures in choices]
    alone = {name: sum(w == {name} for w in wrong) for name in limits}
    counts = alone if any(alone.values()) else {name: sum(name in w for w in wrong) for name in limits}
    most = max(counts.values(), default=0)
    return [name for name, count in counts.items() if count == most and most]


def distance(excess: Mapping[str, float]) -> float:
    """How far a choice is from keeping all limits: the largest share by which it breaks one."""
    return max(excess.values(), default=0.0)


def written(name: str, value: float) -> str:
    """A figure with its unit, as a person reads it."""
    if name == "edge_macs":
        return f"{value / 1e6:.3g} MMAC"
    if name in ("edge_bytes", "edge_memory", "payload"):
        return f"{value / 1e3:.4g} KB" if value >= 1e3 else f"{value:.0f} B"
    if name == "latency":
        return f"{value * 1e3:.3g} ms"
    if name == "accuracy_drop":
        return f"{value:.2f} points"
    return f"{value:.2f} dB" if name in LIMITS and STANDING[LIMITS[name][0]].unit == "dB" else f"{value:.3f}"


def _parsed(text: str, flag: str, units: Mapping[str, float], example: str) -> float:
    match = NUMBER.fullmatch(text)
    if match is None or match[2].upper() not in units:
        known = ", ".join(u.capitalize() if u.endswith("IB") else u for u in units if u)
        raise InputError(f"expected a number with one of {known} for {flag}, got {text!r}; write {flag} {example}.")
    return float(match[1]) * units[match[2].upper()]
