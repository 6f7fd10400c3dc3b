"""Confidence intervals of means over images, by bootstrap."""

import torch
from torch import Tensor

from splitveil.lab.seeds import generator

RESAMPLES = 2000
LEVEL = 0.95
CHUNK = 2_000_000
"""Numbers drawn at one time, so that many images need no more memory."""


def bootstrap(values: Tensor, seed: int = 0) -> list[tuple[float, float]]:
    """95 % percentile bootstrap of means over images (Efron 1979), all metrics from the same resamples.

    Args:
        values: (metrics, N).
        seed: of the resampling.

    Returns:
        (low, high) for each metric; equal where there is one image.
    """
    metrics, n = values.shape
    draws, means = generator(seed, "bootstrap", n), []
    at_once = max(1, CHUNK // n)
    for first in range(0, RESAMPLES, at_once):
        index = torch.randint(n, (min(at_once, RESAMPLES - first), n), generator=draws)
        means.append(values.double()[:, index].mean(2))
    tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    low, high = torch.cat(means, 1).quantile(tails, dim=1)
    return [(float(low[k]), float(high[k])) for k in range(metrics)]
