"""How tightly features gather about clusters of their own: the class radius of those who have no labels.

No paper gives a rule for tasks without classes; this is our reading of the Golden Partition Zone (arXiv 2506.15412),
made fast enough to stand at every cut: k-means in a random projection, which keeps variances.
"""

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.metrics.geometry import CONSTANT, class_radius
from splitveil.lab.seeds import derive, generator

DIRECTIONS = 128
"""Of the random projection."""
STARTS = 4
COLUMNS = 2**15
"""Dimensions that are projected together."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """Variance within k-means clusters over all variance.

    Attributes:
        within: share, both variances unbiased; 0 where z is k points, 0 too where z is constant.
        interval: 95 % bootstrap over the images of each cluster, the clusters held.
        shuffled: the same where each principal component is in an order of its own, so that no cluster is left: what
            k-means takes off features of that spectrum by itself.
        k: clusters asked for.
        directions: of the projection; the features' own number where there was none.
    """

    within: float
    interval: tuple[float, float]
    shuffled: float
    k: int
    directions: int


def within_clusters(
    z: Tensor,
    k: int,
    *,
    standardise: bool = True,
    directions: int = DIRECTIONS,
    resamples: int = 1000,
    seed: int = 0,
) -> Clusters:
    """Variance within `k` k-means clusters over all variance.

    Features of more than `directions` numbers are projected on that many Gaussian directions, the same for equal shape
    and seed. A random projection keeps each squared distance within about ``sqrt(2 / directions)`` of itself (Johnson
    and Lindenstrauss 1984), and so the share, which averages many, far closer.

    Args:
        z: (N, *cut).
        k: clusters, 1 to N / 2; for classifiers the number of classes.
        standardise: channels in units of their own spread; raw depends on the scale of z.
        directions: of the projection.
        resamples: of the bootstrap, 1 or more.
        seed: of projection, starts, shuffling and bootstrap.

    Raises:
        InputError: k or a count out of range, or features that are not (N, *cut).
    """
    if z.ndim < 2 or not 1 <= k <= len(z) // 2 or directions < 1 or resamples < 1:
        raise InputError(
            f"expected (N, *cut), from 1 to N / 2 clusters, directions and resamples of at least 1, got "
            f"{tuple(z.shape)}, {k}, {directions} and {resamples}; give more images or fewer clusters."
        )
    rows = _projected(standardised(z) if standardise else z.float().flatten(1), directions, seed)
    rows = rows - rows.mean(0)
    found = class_radius(rows, _nearest(rows, k, seed), k, standardise=False, resamples=resamples, seed=seed)
    turned = rows @ torch.linalg.eigh(rows.T.double() @ rows.double())[1].float()
    orders = torch.rand(turned.shape, generator=generator(seed, "shuffled clusters", len(z))).to(rows.device).argsort(0)
    mixed = turned.gather(0, orders)
    alone = class_radius(mixed, _nearest(mixed, k, seed), k, standardise=False, resamples=0, seed=seed)
    return Clusters(found.relative, found.relative_interval, alone.relative, k, rows.shape[1])


def standardised(z: Tensor) -> Tensor:
    """Each channel about its mean, in units of its spread over all images and positions; 0 where it is constant.

    Channels are axis 1, or the last axis of tokens (N, L, D). z: (N, *cut) -> (N, D) float32.
    """
    z = z.float()
    axes = tuple(i for i in range(z.ndim) if i != (2 if z.ndim == 3 else 1))
    spread, mean = torch.std_mean(z, axes, correction=0, keepdim=True)
    vary = ~(spread <= CONSTANT * mean.abs())
    # In place: at the widest cuts a second copy would be the one that does not fit.
    rows: Tensor = (z - mean).mul_(torch.where(vary, 1 / spread.masked_fill(~vary, 1), 0)).flatten(1)
    return rows


def _projected(rows: Tensor, directions: int, seed: int) -> Tensor:
    """(N, D) -> (N, min(D, directions))."""
    if rows.shape[1] <= directions:
        return rows
    draws, total = generator(seed, "projection", rows.shape[1]), rows.new_zeros(len(rows), directions)
    for part in rows.split(COLUMNS, 1):
        total += part @ torch.randn(part.shape[1], directions, generator=draws).to(part.device)
    return total.div_(math.sqrt(directions))


def _nearest(rows: Tensor, k: int, seed: int) -> Tensor:
    """Cluster of each row, (N,) int64."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than k: empty clusters are left out
        means = KMeans(k, n_init=STARTS, random_state=derive(seed, "clusters") % 2**32).fit(rows.cpu().numpy())
    nearest: Tensor = torch.from_numpy(means.labels_).long()
    return nearest
