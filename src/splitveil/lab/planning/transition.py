"""Where features of the image become features of the decision: the Golden Partition Zone, found from the curves."""

import math
from collections.abc import Sequence

from splitveil.core.errors import InputError
from splitveil.core.records.plan import CutCurve, Figure, Zone
from splitveil.lab.metrics.zone import drops, lasting_drops, transition

METHODS = ("rc2", "rc2_relative", "rc2_predicted", "within", "rank")
"""Curves that fall where the decision begins; the last two need no labels."""
LEAST = 0.2
"""Relative drop that a zone needs; arXiv 2506.15412's release asks as much of a second transition."""

DETECTORS = ("lasting", "published")
"""What counts as a drop; the first is the usual one."""


def find_zones(curves: Sequence[CutCurve], *, least: float = LEAST, detector: str = DETECTORS[0]) -> list[Zone]:
    """The zone by each of `METHODS` that at least two cuts have a number for, in that order.

    Args:
        curves: of one model; their order does not matter.
        least: relative drop that a zone needs, between 0 and 1.
        detector: see `find_zone`.

    Raises:
        InputError: two curves at one place, a number that is negative or not finite, `least` out of range or an unknown
            detector.
    """
    there = [m for m in METHODS if sum(m in c.numbers for c in curves) > 1]
    return [find_zone(curves, method, least=least, detector=detector) for method in there]


def find_zone(
    curves: Sequence[CutCurve],
    method: str,
    *,
    least: float = LEAST,
    rises: bool = False,
    detector: str = DETECTORS[0],
) -> Zone:
    """The zone by one number: it begins behind the largest lasting drop, and ends with the deepest cut.

    After the detection of arXiv 2506.15412 (released code), mended: whole curves of numbers that do not depend on the
    count of dimensions, cuts by name, and a drop counts only if it lasts and its intervals part
    (`splitveil.lab.metrics.zone.lasting_drops`). "No zone" is an answer. Drops lie between neighbours among the cuts
    given: on a finer grid each is smaller. `rank` counts directions, so it also falls where fewer numbers are left.

    Args:
        curves: of one model; those without that number are left out.
        method: name of the number.
        least: relative drop that a zone needs.
        rises: whether the number grows towards the decision, as an attack's error does; its inverse is then what drops.
        detector: ``lasting``, or ``published``: any two neighbours, as `splitveil.lab.metrics.zone.transition` has it.

    Raises:
        InputError: as `find_zones`.
    """
    if detector not in DETECTORS:
        raise InputError(f"expected a detector of {', '.join(DETECTORS)}, got {detector!r}; use {DETECTORS[0]}.")
    if not 0 < least < 1:
        raise InputError(f"expected a drop between 0 and 1, got {least}; use least={LEAST}.")
    known = sorted((c for c in curves if method in c.numbers), key=lambda c: c.cut.index)
    if len({c.cut.index for c in known}) < len(known):
        raise InputError("expected the curves of one model, got two at one place; give each cut once.")
    if len(known) < 2:
        return Zone(first=None, method=method, words=f"no zone by {method}: it takes two cuts to see a drop")
    figures = [_inverse(c.numbers[method]) if rises else c.numbers[method] for c in known]
    values = [f.value for f in figures]
    published = detector == "published"
    falls = drops(values) if published else lasting_drops(values, [f.interval for f in figures])
    order = sorted(range(len(falls)), key=lambda k: (-falls[k], k))
    begun = transition(values, least=least) or () if published else [k + 1 for k in order[:2] if falls[k] >= least]
    if not begun:
        most = falls[order[0]]
        where = f"; the largest, {most:.0%}, is before {known[order[0] + 1].cut.name}" if most > 0 else ""
        what = f"no {'' if published else 'lasting '}drop of {least:.0%}{where}"
        return Zone(first=None, method=method, words=f"no zone by {method}: {what}")
    k = begun[0] - 1
    before, first, last = known[k].cut, known[k + 1].cut, known[-1].cut
    sides = f"from {_plain(known[k].numbers[method])} to {_plain(known[k + 1].numbers[method])}"
    words = (
        f"zone by {method} from {first.name} on: {'rises' if rises else 'falls'} {sides} behind {before.name}; "
        f"the device does {first.edge_share:.0%} of the MACs there"
    )
    words += f"; a second drop before {known[begun[1]].cut.name}" if len(begun) > 1 else ""
    words += "; published detector" if published else ""
    return Zone(first=first.name, last=last.name, method=method, edge_share=first.edge_share, words=words)


def _inverse(figure: Figure) -> Figure:
    if not figure.value > 0:
        raise InputError(f"expected a rising number above 0, got {figure.value}; leave rises out.")
    low, high = figure.interval or (figure.value, figure.value)
    band = (1 / high, 1 / low if low > 0 else math.inf) if figure.interval else None
    return Figure(value=1 / figure.value, measured=figure.measured, interval=band, source=figure.source)


def _plain(figure: Figure) -> str:
    return f"{figure.value:.3g}"
