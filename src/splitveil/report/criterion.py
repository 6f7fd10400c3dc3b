"""The criterion page: one page a cut, and which cheap number predicts the attack."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from splitveil.core.errors import InputError
from splitveil.core.records import Correlation, Criterion, CutNumbers, Number, write_atomically
from splitveil.core.records.criterion import STRONGEST
from splitveil.report.templates import environment
from splitveil.report.words import MINUS, NONE, signed

WIDTH, HEIGHT, EDGE = 96, 22, 3
ATTACKS = ("decoder", STRONGEST)
"""Whose error is shown beside the numbers."""


@dataclass(frozen=True, slots=True)
class NumberLine:
    """One number through all cuts. `path`: SVG data of its course between its own least and largest value."""

    name: str
    family: str
    unit: str
    leaks: str
    values: tuple[str, ...]
    path: str
    correlations: tuple[Correlation | None, ...]
    expected: bool | None


@dataclass(frozen=True, slots=True)
class CriterionPage:
    """Everything that the template draws."""

    criterion: Criterion
    lines: tuple[NumberLine, ...]
    errors: tuple[NumberLine, ...]
    attacks: tuple[str, ...]
    best: tuple[tuple[str, Correlation], ...]


def render_criterion(criterion: Criterion, out: Path) -> Path:
    """Write one self-contained HTML page; the answer is `out`.

    Raises:
        InputError: `out` cannot be written.
        MissingExtraError: jinja2 is not installed.
    """
    text = (
        environment().get_template("criterion.html.j2").render(page=_page(criterion), number=number_text, rho=rho_text)
    )
    try:
        write_atomically(out, text.encode())
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; name a file in a folder that you may write.") from None
    return out


def number_text(value: float | None) -> str:
    """Three significant digits: ``0.0123``, ``12.3``, ``1.23e+06``; an en dash for None."""
    if value is None:
        return NONE
    return (f"{value:.3g}" if abs(value) < 1e5 else f"{value:.2e}").replace("-", MINUS)


def predicts(number: Number, correlation: Correlation) -> bool | None:
    """Whether the sign is the one that the number promises; None where there is no correlation.

    A number where more should mean easier inversion falls with the attack's error.
    """
    if correlation.rho is None:
        return None
    return correlation.rho < 0 if number.leaks == "more" else correlation.rho > 0


def _page(criterion: Criterion) -> CriterionPage:
    cuts = criterion.cuts
    attacks = tuple(a for a in ATTACKS if cuts and all(a in c.errors for c in cuts))
    lines = tuple(_line(criterion, number, attacks) for number in (cuts[0].numbers if cuts else []))
    errors = tuple(_error(cuts, attack) for attack in attacks)
    best = []
    for attack in attacks:
        numbers = {n.name: n for n in cuts[0].numbers}
        right = [c for c in criterion.correlations if c.attack == attack and predicts(numbers[c.number], c)]
        if right:
            best.append((attack, max(right, key=lambda c: abs(c.rho or 0.0))))
    return CriterionPage(criterion, lines, errors, attacks, tuple(best))


def _line(criterion: Criterion, number: Number, attacks: tuple[str, ...]) -> NumberLine:
    found = [next((n for n in c.numbers if n.name == number.name), None) for c in criterion.cuts]
    values = [n.value if n else None for n in found]
    by_attack = {c.attack: c for c in criterion.correlations if c.number == number.name}
    shown = tuple(by_attack.get(a) for a in attacks)
    signs = [predicts(number, c) for c in shown if c]
    texts = tuple(number_text(v) for v in values)
    return NumberLine(
        number.name, number.family, number.unit, number.leaks, texts, course(values), shown, next(iter(signs), None)
    )


def _error(cuts: list[CutNumbers], attack: str) -> NumberLine:
    values = [c.errors[attack] for c in cuts]
    return NumberLine(
        attack, "attack", "MSE per element", "less", tuple(number_text(v) for v in values), course(values), (), None
    )


def course(values: Sequence[float | None]) -> str:
    """SVG path data of values from left to right, the largest on top; gaps where there is none."""
    there = [v for v in values if v is not None]
    if len(there) < 2:
        return ""
    low, span = min(there), (max(there) - min(there)) or 1.0
    step = (WIDTH - 2 * EDGE) / (len(values) - 1)
    words, pen = [], "M"
    for k, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        y = HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (value - low) / span
        words.append(f"{pen}{EDGE + k * step:.1f},{y:.1f}")
        pen = "L"
    return "".join(words)


def rho_text(correlation: Correlation | None) -> str:
    """``0.93``; an en dash where there is none."""
    return NONE if correlation is None or correlation.rho is None else signed(correlation.rho, 2)
