"""The choice that is recommended: fresh attacks have the last word, and the reason stands in words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from splitveil.core.records import LEAKAGE, Need
from splitveil.lab.planning.budgets import Figures, broken, distance, kept, written
from splitveil.lab.planning.need import in_words, minutes
from splitveil.lab.planning.search import Known, Search, holds, preference

TRIES = 6
"""Choices that fresh attacks may be tried on."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a search comes to.

    Attributes:
        chosen: measured afresh, and within every limit then; None where nothing is.
        tried: all that fresh attacks were tried on.
        ended: False where time ran out before all that could hold was tried.
    """

    chosen: Known | None
    tried: tuple[Known, ...]
    ended: bool


def verified(
    search: Search, verify: Callable[[Known], None], more: Callable[[], bool], *, tries: int = TRIES
) -> Verdict:
    """Try fresh attacks on choices in order of preference until one keeps every limit.

    A fresh audit attacks harder than the search did. How much more it got so far is added to what the search measured
    of the choices still waiting, and those that would break a limit with it come last; they are tried none the less.

    Args:
        search: with everything measured; `verify` fills ``fresh``.
        verify: measures one choice with attacks that the search never ran.
        more: whether there is time for another.
        tries: most of them.
    """
    tried: list[Known] = []
    while True:
        waiting = [k for k in search.audited if holds(k, search.limits) and k not in tried]
        if not waiting or len(tried) >= tries:
            return Verdict(None, tuple(tried), ended=not waiting)
        if not more():
            return Verdict(None, tuple(tried), ended=False)
        shift = _shift(tried)
        waiting.sort(
            key=lambda k: (_breaks(k, shift, search.limits), preference(k.figures(), search.limits, search.leak))
        )
        chosen = waiting[0]
        verify(chosen)
        tried.append(chosen)
        if not broken(chosen.figures(), search.limits) and kept(chosen.figures(), search.limits):
            return Verdict(chosen, tuple(tried), ended=True)


def nearest(search: Search, count: int = 3) -> list[Known]:
    """The choices that come closest to keeping all limits: measured ones, or where there are none, by their proxies."""
    expected = search.expected()
    measured = search.audited
    pool = measured or [k for k in search.offered if k.proxy] or search.offered
    return sorted(pool, key=lambda k: distance(broken(k.figures(expected[k.option]), search.limits)))[:count]


def why(search: Search, verdict: Verdict, suite: str) -> str:
    """Why this choice."""
    k = verdict.chosen
    if k is None:
        raise ValueError("expected a chosen option; ask why_not.")
    limits, figures = search.limits, k.figures()
    leaks = [name for name in limits if name in LEAKAGE]
    held = ", ".join(f"{_said(name)} <= {written(name, limits[name])}" for name in leaks)
    first = (
        f"{k.option.cut} with {k.option.defense} and {k.option.codec}: the least work for the device that keeps {held}"
        if leaks
        else f"{k.option.cut} with {k.option.defense} and {k.option.codec}: the least leakage ({_said(search.leak)} "
        f"{written(search.leak, figures[search.leak].value)}) within the limits"
    )
    bound, _ = search.binding(())
    failed = [o for o in verdict.tried if o is not k]
    return (
        f"{first}; binding constraint: {', '.join(map(_said, bound)) or 'none'}. Measured afresh with {suite}: "
        f"{_got(figures, leaks or [search.leak])}."
        + _beyond(figures, limits)
        + (f" {len(failed)} preferred before it broke a limit when attacked afresh." if failed else "")
    )


def why_not(
    search: Search,
    verdict: Verdict,
    limits: Mapping[str, float],
    pruned: list[Known],
    *,
    floors: Mapping[str, tuple[str, float]],
    complete: bool,
    need: Need | None = None,
) -> str:
    """Why nothing is recommended, which limit binds, and what comes nearest.

    Args:
        search: with everything known.
        verdict: without a chosen one.
        limits: by name.
        pruned: choices that what was counted excludes.
        floors: leakage -> the guess without features that gets most of it, and how much.
        complete: whether the search had the time that it wanted.
        need: how long a plan with measurements takes, where the time ran out.
    """
    below = [
        f" No split can keep {_said(n)} <= {written(n, limits[n])}: {attack}, which sees no features, gets "
        f"{written(n, least)}."
        for n, (attack, least) in floors.items()
        if n in limits and least > limits[n]
    ]
    late = (
        ""
        if complete or not verdict.ended or not search.measured
        else " The search ran out of time: more minutes and --resume may find one."
    )
    if not complete or not verdict.ended:
        late += _advice(search, need)
    return _why_not(search, verdict, limits, pruned) + "".join(below) + late


def _advice(search: Search, need: Need | None) -> str:
    """How much time to give, where it is known."""
    if need is None or not search.offered:
        return ""
    return f" A plan takes {in_words(need)}; give --minutes {minutes(need.whole)} and --resume."


def _why_not(search: Search, verdict: Verdict, limits: Mapping[str, float], pruned: list[Known]) -> str:
    expected = search.expected()
    bound, certain = search.binding(pruned)
    names = ", ".join(map(_said, bound)) or "none"
    named = f"binding constraint: {names}" if certain else f"expected binding constraint, by estimates: {names}"
    if not search.offered and pruned:
        best = min(pruned, key=lambda k: distance(broken(k.costs, limits)))
        over = _over(best, limits)
        return f"No choice keeps the limits that need no measurement; {named}. Nearest: {best.option.label} ({over})."
    if search.offered and not search.measured:
        return (
            "Nothing was measured: the time ran out before any choice was trained or attacked, so that nothing can be "
            f"said of this budget yet; {named}. Nearest by estimates: {nearest(search, 1)[0].option.label}."
        )
    if not verdict.ended:
        what = "every choice that holds in the search was attacked afresh" if verdict.tried else "one was verified"
        return f"The time ran out before {what}, so nothing is recommended; {named}."
    close = nearest(search, 1)
    if not close:
        return f"Nothing could be measured; {named}."
    best = close[0]
    if verdict.tried:
        return (
            f"Nothing keeps every limit when attacked afresh ({len(verdict.tried)} tried); {named}. "
            f"Nearest: {best.option.label} ({_over(best, limits, expected.get(best.option))})."
        )
    return (
        f"Nothing that was measured keeps every limit; {named}. Nearest: {best.option.label} "
        f"({_over(best, limits, expected.get(best.option))})."
    )


def _shift(tried: list[Known]) -> dict[str, float]:
    """How much more fresh attacks got, on average, than those of the search."""
    return {
        name: max(0.0, sum(k.fresh[name].value - k.found[name].value for k in tried) / len(tried))
        for name in (*LEAKAGE, "accuracy_drop")
        if tried and all(name in k.fresh and name in k.found for k in tried)
    }


def _breaks(k: Known, shift: Mapping[str, float], limits: Mapping[str, float]) -> bool:
    return any(k.found[name].value + more > limits[name] for name, more in shift.items() if name in limits)


def _over(k: Known, limits: Mapping[str, float], expected: Figures | None = None) -> str:
    figures = k.figures(expected)
    wrong = broken(figures, limits)
    if not wrong:
        return "expected to keep them, not measured afresh"
    return ", ".join(f"{_said(n)} {written(n, figures[n].value)} instead of {written(n, limits[n])}" for n in wrong)


def _got(figures: Figures, leaks: list[str]) -> str:
    names = [*leaks, "accuracy_drop", "edge_macs", "payload"]
    return ", ".join(f"{_said(n)} {written(n, figures[n].value)}{_reach(figures, n)}" for n in names if n in figures)


def _reach(figures: Figures, name: str) -> str:
    interval = figures[name].interval if name == "accuracy_drop" else None
    return f" (95 %: {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""


def _beyond(figures: Figures, limits: Mapping[str, float]) -> str:
    """That the accuracy lost may be more than the limit, where the test images cannot rule it out."""
    limit, drop = limits.get("accuracy_drop"), figures.get("accuracy_drop")
    if limit is None or drop is None or drop.interval is None or drop.interval[1] <= limit:
        return ""
    return f" The test images do not rule out a loss beyond {written('accuracy_drop', limit)}."


def _said(name: str) -> str:
    return {
        "ssim": "SSIM",
        "psnr": "PSNR",
        "ssim_worst": "SSIM of the worst 5 %",
        "psnr_worst": "PSNR of the worst 5 %",
    }.get(name, name.replace("_", " "))
