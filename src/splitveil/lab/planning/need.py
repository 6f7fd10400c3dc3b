"""How long a plan needs so that it rests on measurements, from what was timed while it ran."""

import math

from splitveil.core.records import Need
from splitveil.lab.planning.clock import FRESH, PROXIES, SEARCH, Clock


def needed(clock: Clock, *, choices: int, training: float, waiting: int) -> Need:
    """Time for a plan that measures one choice, and for one that measures all that it meant to.

    Args:
        clock: with what was timed.
        choices: that the search meant to measure.
        training: seconds of one training.
        waiting: proxies that were not taken for want of time.
    """
    audit, proxy = clock.expected("audit"), clock.expected("proxy")
    fresh = clock.expected("fresh") or FRESH * audit
    fixed = clock.seconds - clock.spent("measure") - clock.spent("fresh") - clock.spent("trial") + waiting * proxy
    proxies = clock.spent("proxy") + waiting * proxy

    def whole(count: int) -> float:
        searched = fixed + count * (training + audit)
        least = clock.limit if math.isfinite(clock.limit) else 0.0  # this one was not enough
        return max(searched / SEARCH, searched + fresh, proxies / PROXIES, least)

    return Need(
        training=round(training, 3), audit=round(audit, 3), fresh=round(fresh, 3), choices=choices,
        one=round(whole(1), 1), whole=round(whole(max(choices, 1)), 1),
    )  # fmt: skip


def in_words(need: Need) -> str:
    """``about 6 minutes with one choice measured, 19 with all 12 that were meant (estimated ...)``."""
    one, whole = minutes(need.one), minutes(need.whole)
    both = f"about {one} minutes with one choice measured"
    if need.choices > 1:
        both += f", about {whole} with all {need.choices} that were meant"
    return (
        f"{both} (estimated from what was timed in this run: {need.training:.2g} s for a training, {need.audit:.2g} s "
        f"for a short audit, {need.fresh:.2g} s for a fresh one)"
    )


def minutes(seconds: float) -> int:
    """Whole ones, rounded up."""
    return max(1, math.ceil(seconds / 60))
