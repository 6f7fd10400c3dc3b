"""Confidence intervals of proportions: of one share of images (Wilson), and of two shares of the same images."""

import math

from splitveil.core.errors import InputError

Z = 1.959963984540054
"""97.5 % quantile of the standard normal: every interval here is one of 95 %."""

Interval = tuple[float, float]


def wilson(right: float, n: int) -> Interval:
    """95 % score interval of a share (Wilson 1927), sensible also where none or all are right.

    Args:
        right: images that are right, 0 to n; a mean over seeds need not be whole.
        n: images, at least 1.

    Raises:
        InputError: no image, or more right than there are.
    """
    if n < 1 or not 0 <= right <= n:
        raise InputError(f"expected 0 to n right of n >= 1 images, got {right} of {n}; count the images first.")
    share, spread = right / n, Z * Z / n
    middle = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / n + spread / n / 4) / (1 + spread)
    # The ends that are exact, freed of rounding.
    return (0.0 if right == 0 else middle - half), (1.0 if right == n else middle + half)


def paired(both: int, first: int, second: int, neither: int) -> Interval:
    """95 % interval of the first share less the second, of two nets asked the same images.

    What both answer alike tells nothing of their difference, so this is narrower than two intervals held side by side:
    Newcombe 1998 (Statistics in Medicine 17, 2635-2650), method 10: both Wilson intervals, squared and added, less what
    the correlation phi takes away, corrected for continuity where it is positive.

    Args:
        both: images that both have right.
        first: only the first.
        second: only the second.
        neither: none of them.

    Raises:
        InputError: a negative count, or no image.
    """
    counts = both, first, second, neither
    n = sum(counts)
    if min(counts) < 0 or n < 1:
        raise InputError(f"expected four counts of 0 or more and at least one image, got {counts}; count them first.")
    one, two = (both + first) / n, (both + second) / n
    (low1, high1), (low2, high2) = wilson(both + first, n), wilson(both + second, n)
    phi = _correlation(both, first, second, neither)

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    difference = one - two
    return difference - reach(one - low1, high2 - two), difference + reach(high1 - one, two - low2)


def _correlation(both: int, first: int, second: int, neither: int) -> float:
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if not margins:
        return 0.0
    product, n = both * neither - first * second, both + first + second + neither
    return (max(product - n / 2, 0.0) if product > 0 else product) / math.sqrt(margins)
