"""Where a curve over cuts falls for good (Golden Partition Zone), and the bound on H(x|z) that goes with it.

Bounds and detection of arXiv 2506.15412 (Liu and Zhu 2025), from the class radius of `splitveil.lab.metrics.geometry`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.metrics.geometry import CONSTANT, Radius


@dataclass(frozen=True, slots=True)
class EntropyBounds:
    """At most this much differential entropy, in nats, in the units of the radius they are from.

    Attributes:
        feature: of h(z), as if z were Gaussian of the total variance.
        decision: of h(z | y), as if z were Gaussian about each class mean; h(z) is at most H(y) <= ln K larger.
    """

    feature: float
    decision: float


def h_bounds(radius: Radius) -> EntropyBounds:
    """``(d/2) ln(2 pi e sigma^2)`` and ``(D/2) ln(2 pi e R_c^2 / D)`` in nats (arXiv 2506.15412, theory section).

    Both are maximum-entropy bounds: they hold for any distribution with that variance, and say nothing of how far
    below it z lies. Differential entropy moves with the scale of z: with standardised channels it is that of z in
    units of each channel's spread, and compares cuts only beside a constant in the same units.
    """
    d = radius.dimensions
    return EntropyBounds(_gaussian_entropy(radius.total, d), _gaussian_entropy(radius.per_dimension, d))


def quantisation_constant(step: float, dimensions: int) -> float:
    """``-D ln(step)`` in nats: what a quantiser adds to h(z) to give the entropy of its codes (our reading of kappa).

    Near enough for steps well below the spread; exactly true of h(z_q + U), z_q the quantised features and U uniform
    in a cell, whose variance is that of z_q plus ``step^2 / 12``. step: in the units in which h(z) was taken.
    """
    if not (step > 0 and dimensions >= 0):
        raise InputError(f"expected step above 0 and dimensions, got {step} and {dimensions}; give the codec's step.")
    return -dimensions * math.log(step)


def conditional_entropy_bound(entropy_x: float, h_z: float, kappa: float) -> float:
    """``H(x | z) >= H(x) - h(z) - kappa`` in nats (arXiv 2506.15412, theory section), kept between 0 and H(x).

    Needs a discrete x of known entropy, a bound from above on h(z) and a z that is quantised before it crosses: an
    exact real-valued z of a deterministic edge has no such bound, kappa is infinite there and the answer 0. kappa
    depends on the quantiser (:func:`quantisation_constant`). From the decision-level bound, add H(y) to `h_z`.
    Where the answer is 0, nothing is certified.
    """
    return entropy_x - min(max(h_z + kappa, 0.0), entropy_x)


def crossing_bound(z: Tensor, radius: Radius, labels: float, *, bits: int) -> tuple[float, float]:
    """The most that h(z) can be, and kappa of a quantiser with ``2^bits`` steps over each channel's range; nats.

    h(z) is the smaller of the feature bound and the decision bound with H(y) added, in units of each channel's spread.
    kappa counts the channels that `class_radius` counts: one that is constant but for rounding has steps of noise, and
    h(z) has no share of it, so that its kappa would be bits that cross for nothing.

    Args:
        z: (N, *cut).
        radius: of z, standardised.
        labels: H(y), nats.
        bits: of the quantiser.
    """
    channels = z.movedim(-1 if z.ndim == 3 else 1, 0).flatten(1)
    spread = channels.std(1)
    live = spread > CONSTANT * channels.mean(1).abs()
    steps = (channels.amax(1) - channels.amin(1))[live] / (2**bits - 1) / spread[live]
    kappa = sum(quantisation_constant(float(step), z[0].numel() // len(channels)) for step in steps)
    bounds = h_bounds(radius)
    return min(bounds.feature, bounds.decision + labels), float(kappa)


def drops(values: Sequence[float]) -> tuple[float, ...]:
    """Relative fall from each cut to the next, ``(v[i] - v[i + 1]) / v[i]``; a rise is negative. n -> n - 1 values.

    Raises:
        InputError: a value that is negative or not finite.
    """
    if not all(math.isfinite(v) and v >= 0 for v in values):
        raise InputError(f"expected values of 0 or more at every cut, got {list(values)}; give R_c^2 / D of each cut.")
    return tuple((a - b) / a if a else (-math.inf if b else 0.0) for a, b in pairwise(values))


def lasting_drops(
    values: Sequence[float], intervals: Sequence[tuple[float, float] | None] | None = None
) -> tuple[float, ...]:
    """Relative falls that noise, a bump and a dip do not make; 0 where there is none. n -> n - 1 values.

    Our reading of "abrupt drop" in arXiv 2506.15412, whose release takes any two neighbours. It falls to the highest
    of all cuts after it: what comes back, as inside and behind a skip connection, was never lost. It falls from the cut
    before it, but from no higher than some earlier one: a bump is no height to fall from. The deepest cut, which no
    later one confirms, has to fall from both of the two before it. Where intervals meet, it is no fall.

    Args:
        values: at each cut, shallowest first.
        intervals: (low, high) of each value; None where it has none.

    Raises:
        InputError: a value that is negative or not finite, or another number of intervals.
    """
    drops(values)  # refuses what is no curve
    around = list(intervals) if intervals is not None else [None] * len(values)
    if len(around) != len(values):
        raise InputError(f"expected {len(values)} intervals, got {len(around)}; give one for each cut, or None.")
    bands = [band if band is not None else (v, v) for band, v in zip(around, values, strict=True)]
    found = []
    for k in range(1, len(values)):
        earlier = range(k - 1) if k < len(values) - 1 else range(max(0, k - 2), k - 1)
        support = max(earlier, key=lambda i: values[i], default=k - 1)
        before = min(k - 1, support, key=lambda i: values[i])
        high, top = max(values[k:]), max(high for _, high in bands[k:])
        falls = values[before] > high and bands[before][0] > top
        found.append((values[before] - high) / values[before] if falls else 0.0)
    return tuple(found)


def transition(values: Sequence[float], second: float = 0.2, *, least: float = 0.2) -> tuple[int, ...] | None:
    """Cuts at which features become decision-like: the published detection (released code of arXiv 2506.15412).

    The largest drop is the transition; if a change of at least `second`, down or up, lies strictly between the two
    largest drops, both are. Answers are indices into `values` of the first cut after the drop (the release names a
    layer one off), in order of depth. Our reading: a drop below `least` is none, so that "no zone" is an answer
    (vision transformers), and values are R_c^2 / D, where the release compares sums over unequal dimensions.

    Args:
        values: per_dimension or relative of a :class:`Radius` at each cut, shallowest first.
        second: change between two transitions.
        least: drop that a transition needs.

    Raises:
        InputError: a value that is negative or not finite.
    """
    found = drops(values)
    order = sorted(range(len(found)), key=lambda i: (-found[i], i))
    large = [i for i in order[:2] if found[i] >= least]
    if len(large) == 2:
        low, high = sorted(large)
        if any(abs(change) >= second for change in found[low + 1 : high]):
            return low + 1, high + 1
    return (large[0] + 1,) if large else None


def _gaussian_entropy(variance: float, dimensions: int) -> float:
    if not dimensions:
        return 0.0
    return dimensions / 2 * math.log(2 * math.pi * math.e * variance) if variance else -math.inf
