"""Pareto fronts of points whose axes are all minimised, and their hypervolume."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
DRAWS = 4096


def undominated(points: Array) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Which of (N, axes) no other is at least as good as everywhere and better than somewhere -> (N,) bool."""
    no_worse = (points[:, None] <= points[None]).all(2)
    better = (points[:, None] < points[None]).any(2)
    return np.asarray(~(no_worse & better).any(0), dtype=np.bool_)


def hypervolume(points: Array, reference: Array) -> float:
    """Volume that (N, axes) dominate within `reference` (axes,), exactly, by slicing along the last axis."""
    points = points[(points < reference).all(1)]
    if not len(points):
        return 0.0
    points = points[undominated(points)]
    if points.shape[1] == 1:
        return float(reference[0] - points.min())
    points = points[np.argsort(points[:, -1], kind="stable")]
    heights = np.append(points[1:, -1], reference[-1]) - points[:, -1]
    return float(sum(h * hypervolume(points[: i + 1, :-1], reference[:-1]) for i, h in enumerate(heights) if h > 0))


def gains(known: Array, others: Array, seed: int) -> Array:
    """Share of the unit box that each of `others` (M, axes) would add to what `known` (N, axes) dominates -> (M,).

    By the same `DRAWS` random points for all, so that differences between them are sharper than the shares.
    """
    axes = others.shape[1]
    draws = np.random.default_rng(seed).random((DRAWS, axes))
    left = draws
    for point in known:
        left = left[~(point <= left).all(1)]
    return np.array([(point <= left).all(1).sum() / DRAWS for point in others], dtype=np.float64)
