"""The floor of conditional entropy maximisation (CEM, CVPR 2025, arXiv 2503.00383), in nats.

With ``z = f(x) + sigma * n`` and H differential entropy, any guess of x has a mean squared error per element

    xi >= exp(2 H(x|z) / d) / (2 pi e),  H(x|z) = H(x) - I(x; z)

since a Gaussian has the most entropy of all errors of one size. I(x; z) is bounded from above by cutting f(x) into
groups k of weight pi_k, whichever way:

    I(x; z) <= sum_k pi_k (-ln pi_k + ln det(1 + Sigma_k / sigma^2) / 2)

with Sigma_k the covariance within a group. Replacing the determinant by the diagonal's product, or by the mean
variance, only raises the bound. It holds for the true weights and covariances; from few samples they come out too
small, and the floor too high. H(x) is an estimate too, and blurred as in `prior`; f must then read blurred images.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.metrics.bounds.fisher import noise_scale
from splitveil.lab.metrics.bounds.prior import SMOOTHING, covariance

CLUSTERS = 5
"""Clusters of each class, as in the paper's training."""


def information_bound(
    z: Tensor,
    sigma: float | Tensor,
    groups: Tensor,
    *,
    form: Literal["isotropic", "diagonal"] = "diagonal",
    queries: int = 1,
) -> float:
    """Upper bound of I(x; z) in nats.

    ``isotropic`` takes the logarithm of the mean variance in units of the noise, as the paper's loss does; ``diagonal``
    the mean of the logarithms of every feature's, which is never larger (our reading).

    Args:
        z: (N, *cut), before the noise.
        sigma: as in `fisher_trace`.
        groups: (N,) integers, see `clusters`.
        form: isotropic or diagonal.
        queries: answers to one input, each with its own noise.

    Raises:
        InputError: another form, noise missing on some feature, groups of another length.
    """
    if form not in ("isotropic", "diagonal"):
        raise InputError(f"expected form isotropic or diagonal, got {form!r}; use diagonal.")
    if groups.shape != z.shape[:1]:
        raise InputError(f"expected groups of shape ({len(z)},), got {tuple(groups.shape)}; give one for each sample.")
    scale = noise_scale(sigma, tuple(z.shape[1:]))
    if bool((scale == 0).any()):
        raise InputError("expected noise on every feature, got sigma = 0; without noise there is no bound.")
    flat = z.detach().double().cpu().flatten(1) * math.sqrt(queries) / scale.cpu().flatten()
    total = 0.0
    for k in groups.unique():
        members = flat[(groups == k).cpu()]
        weight = len(members) / len(flat)
        variances = members.var(0, correction=0)
        logs = variances.log1p().sum() if form == "diagonal" else len(variances) * variances.mean().log1p()
        total += weight * (0.5 * logs.item() - math.log(weight))
    return total


def clusters(z: Tensor, *, labels: Tensor | None = None, count: int = CLUSTERS, seed: int = 0) -> Tensor:
    """Groups for `information_bound`: k-means within each class, or over all samples where labels are not given.

    Args:
        z: (N, *cut).
        labels: (N,) or None.
        count: clusters of each class, no more than its samples.
        seed: of k-means.

    Returns:
        (N,), int64.
    """
    from sklearn.cluster import KMeans

    flat = z.detach().float().cpu().flatten(1)
    classes = torch.zeros(len(z), dtype=torch.int64) if labels is None else labels.cpu()
    groups = torch.zeros(len(z), dtype=torch.int64)
    for c, label in enumerate(classes.unique()):
        members = (classes == label).nonzero().flatten()
        distinct = min(count, len(flat[members].unique(dim=0)))
        means = KMeans(distinct, n_init=4, random_state=seed).fit(flat[members].numpy())
        groups[members] = c * count + torch.from_numpy(means.labels_).long()
    return groups


def floor_cem(entropy: float, information: float, d: int) -> float:
    """Mean squared error per element that no adversary beats, given H(x) and an upper bound of I(x; z).

    Args:
        entropy: H(x) in nats, pixels in [0, 1], see `gaussian_entropy` and `noise_entropy`.
        information: in nats.
        d: elements of one input.
    """
    return math.exp(2 * (entropy - information) / d) / (2 * math.pi * math.e)


def gaussian_entropy(x: Tensor, *, smoothing: float = SMOOTHING) -> float:
    """H of a Gaussian with the blurred images' covariance, in nats. x: (M, ...) in [0, 1].

    No density of that covariance has more, so a floor from it is optimistic.

    Raises:
        InputError: fewer than two images.
    """
    spread = covariance(x, smoothing)
    return 0.5 * (torch.logdet(spread).item() + len(spread) * math.log(2 * math.pi * math.e))


def noise_entropy(d: int, smoothing: float = SMOOTHING) -> float:
    """What holds for every prior after the blur: H(x + s n) is no smaller than H(s n), in nats.

    Raises:
        InputError: no smoothing.
    """
    if not smoothing > 0:
        raise InputError(f"expected a smoothing above 0, got {smoothing}; use {SMOOTHING}.")
    return 0.5 * d * math.log(2 * math.pi * math.e * smoothing**2)
