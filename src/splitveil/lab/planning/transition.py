"""Where features of the image become features of the decision: the Golden Partition Zone, found from the curves."""

import math
from collections.abc import Sequence

from splitveil.core.errors import InputError
from splitveil.core.records.plan import CutCurve, Figure, Zone
from splitveil.lab.metrics.zone import lasting_drops

METHODS = ("rc2", "rc2_relative", "rc2_predicted", "within", "rank")
"""Curves that fall where the decision begins; the last two need no labels."""
LEAST = 0.2
"""Relative drop that a zone needs; arXiv 2506.15412's release asks as much of a second transition."""


def find_zones(curves: Sequence[CutCurve], *, least: float = LEAST) -> list[Zone]:
    """The zone by each of `METHODS` that at least two cuts have a number for, in that order.

    Args:
        curves: of one model; their order does not matter.
        least: relative drop that a zone needs, between 0 and 1.

    Raises:
        InputError: two curves at one place, a number that is negative or not finite, or `least` out of range.
    """
    there = [m for m in METHODS if sum(m in c.numbers for c in curves) > 1]
    return [find_zone(curves, method, least=least) for method in there]


def find_zone(curves: Sequence[CutCurve], method: str, *, least: float = LEAST, rises: bool = False) -> Zone:
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

    Raises:
        InputError: as `find_zones`.
    """
    if not 0 < least < 1:
        raise InputError(f"expected a drop between 0 and 1, got {least}; use least={LEAST}.")
    known = sorted((c for c in curves if method in c.numbers), key=lambda c: c.cut.index)
    if len({c.cut.index for c in known}) < len(known):
        raise InputError("expected the curves of one model, got two at one place; give each cut once.")
    if len(known) < 2:
        return Zone(first=None, method=method, words=f"no zone by {method}: it takes two cuts to see a drop")
    figures = [_inverse(c.numbers[method]) if rises else c.numbers[method] for c in known]
    found = lasting_drops([f.value for f in figures], [f.interval for f in figures])
    order = sorted(range(len(found)), key=lambda k: (-found[k], k))
    k = order[0]
    if found[k] < least:
        where = f"; the largest, {found[k]:.0%}, is before {known[k + 1].cut.name}" if found[k] else ""
        return Zone(first=None, method=method, words=f"no zone by {method}: no lasting drop of {least:.0%}{where}")
    before, first, last = known[k].cut, known[k + 1].cut, known[-1].cut
    sides = f"from {_plain(known[k].numbers[method])} to {_plain(known[k + 1].numbers[method])}"
    words = (
        f"zone by {method} from {first.name} on: {'rises' if rises else 'falls'} {sides} behind {before.name}; "
        f"the device does {first.edge_share:.0%} of the MACs there"
    )
    others = [known[i + 1].cut.name for i in order[1:2] if found[i] >= least]
    words += f"; a second drop before {others[0]}" if others else ""
    return Zone(first=first.name, last=last.name, method=method, edge_share=first.edge_share, words=words)


def _inverse(figure: Figure) -> Figure:
    if not figure.value > 0:
        raise InputError(f"expected a rising number above 0, got {figure.value}; leave rises out.")
    low, high = figure.interval or (figure.value, figure.value)
    band = (1 / high, 1 / low if low > 0 else math.inf) if figure.interval else None
    return Figure(value=1 / figure.value, measured=figure.measured, interval=band, source=figure.source)


def _plain(figure: Figure) -> str:
    return f"{figure.value:.3g}"
