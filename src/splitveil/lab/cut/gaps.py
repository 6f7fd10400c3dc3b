"""Long stretches of a model that hold no legal cut, and what is in the way there."""

from collections.abc import Sequence
from dataclasses import dataclass

from splitveil.lab.cut.flow import Flow, Point, listed

WORTH = 0.2
"""Share of the model's multiply-accumulates from which a stretch without a cut deserves words."""
NAMED = 4
AUTOCAST = "wrap_with_autocast"


@dataclass(frozen=True, slots=True)
class Gap:
    """No cut lies between two neighbouring ones.

    Attributes:
        after: the cut before it; None: the input.
        before: the cut behind it; None: the output.
        share: of the model's multiply-accumulates, 0 to 1; at least `WORTH`.
        why: what keeps its widest place from being a cut.
    """

    after: str | None
    before: str | None
    share: float
    why: str


def find_gaps(flow: Flow) -> list[Gap]:
    """Every stretch without a cut that is worth words, from the input to the output."""
    legal = [flow.cut(i) for i in range(len(flow.legal))]
    places = [flow.position[points[0].node] for points in flow.legal]
    ends = sorted(zip(places, legal, strict=True), key=lambda end: end[0])
    names = [None, *(cut.name for _, cut in ends), None]
    places = [0, *(place for place, _ in ends), len(flow.order)]
    done = [0.0, *(cut.edge_share for _, cut in ends), 1.0]
    found = []
    for i in range(len(names) - 1):
        inside = [p for p in flow.points if places[i] < flow.position[p.node] < places[i + 1] and p.reason]
        share = done[i + 1] - done[i]
        if None in (names[i], names[i + 1]):  # that an end computes nothing needs no words
            inside = [p for p in inside if len(p.crossing) > 1]
        if inside and share >= WORTH:
            found.append(Gap(names[i], names[i + 1], share, _why(inside)))
    return found or ([] if legal else _nowhere(flow.points))


def _nowhere(points: Sequence[Point]) -> list[Gap]:
    """No cut at all, and no stretch that explains it: the steps are too few."""
    if any(AUTOCAST in p.name for p in points):
        return [Gap(None, None, 1.0, "torch.autocast inside the model makes one step of it; leave it out of the model")]
    reasons = dict.fromkeys(str(p.reason) for p in points)
    return [Gap(None, None, 1.0, "; ".join(reasons) or "its answer is not computed from the image")]


def _why(points: Sequence[Point]) -> str:
    widest = max(points, key=lambda p: len(p.crossing))
    if len(widest.crossing) < 2:
        return str(widest.reason)
    more = len(widest.crossing) - NAMED
    names = [*widest.crossing[:NAMED], *([f"{more} more"] if more > 0 else [])]
    return f"{listed(names)} would cross together"
