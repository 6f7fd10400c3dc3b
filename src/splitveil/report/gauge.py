"""Gauges of a plan's page: how much of each limit of the budget a choice uses."""

from dataclasses import dataclass

from splitveil.core.records import Choice, Plan
from splitveil.report import words
from splitveil.report.quantities import figure_text, held, known, ordered


@dataclass(frozen=True, slots=True)
class Gauge:
    """One limit and what a choice uses of it. `share`: of the limit; None where the choice does not say.

    `upper`: end of the interval that is held against the limit; empty where it is the value itself.

    `fill` and `tick` are places on the bar in percent: where what is used ends, and where the limit stands.
    """

    label: str
    value: str
    upper: str
    limit: str
    share: float | None
    fill: float
    tick: float
    measured: bool
    broken: bool
    binds: bool


def gauges(plan: Plan, choice: Choice) -> tuple[Gauge, ...]:
    """Each limit of the budget with what the choice uses of it, in the order of `QUANTITIES`."""
    limits = plan.budget.limits()
    return tuple(_gauge(name, limits[name], choice, binds=name in plan.binding) for name in ordered(limits))


def _gauge(name: str, limit: float, choice: Choice, *, binds: bool) -> Gauge:
    figure, write = choice.figures.get(name), known(name).write
    used = held(name, figure) if figure else None
    share = max(used / limit, 0.0) if used is not None and limit > 0 else None
    whole = max(1.0, min(share or 0.0, 2.0))
    broken = name in choice.broken or (used is not None and used > limit)
    return Gauge(
        known(name).label, figure_text(name, figure) if figure else words.NONE,
        write(used) if figure and used is not None and used != figure.value else "", write(limit), share,
        round(100 * min(share or 0.0, whole) / whole, 1), round(100 / whole, 1),
        bool(figure and figure.measured), broken, binds,
    )  # fmt: skip
