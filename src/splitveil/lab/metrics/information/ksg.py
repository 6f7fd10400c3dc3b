"""KSG: mutual information by counting neighbours (Kraskov, Stoegbauer and Grassberger 2004, estimator 1)."""

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.metrics.information.base import MIEstimate, Validity, mean_interval, paired, standardised
from splitveil.lab.seeds import generator

JITTER = 1e-10
"""Spread of the noise that breaks ties, in standard deviations."""
ROWS = 512
"""Samples whose distances to all others are held at once."""
TRUSTED_DIMS = 4
"""With more features than this in x or in z, neighbours are far and the estimate falls short."""
RANGE = (Validity(1, 4.0, 2000, 0.2), Validity(2, 4.0, 4000, 0.25))
"""Outside it falls short: at 4,000 samples 2 nats in 8 dimensions are read as 1.20, 4 as 2.26; 8 nats in 32 as 1.0."""


def ksg_estimate(x: Tensor, z: Tensor, *, seed: int = 0, k: int = 3) -> MIEstimate:
    """I(x;z) by k nearest neighbours, in nats: no training, and all samples count.

    ``psi(k) + psi(N) - mean(psi(n_x + 1) + psi(n_z + 1))`` (equation 8): n_x samples lie nearer in x than the k-th
    neighbour in the joint space lies there, under the maximum norm. At least k - 1 do in x and in z, and k in one of
    them (the k-th neighbour is that far away in one of the two only), so that the estimate never exceeds
    ``psi(N) - psi(k) - 1/k``, and reaches it for z = x. It is no bound: with many features the joint neighbours are far
    away and it falls short, which the note says. The interval takes the samples' terms as independent, which they are
    nearly (our reading). Time grows as N^2.

    Args:
        x: (N, ...), any shape; standardised feature by feature.
        z: (N, ...).
        seed: of the noise that breaks ties.
        k: neighbours; more of them steady the estimate and lower its cap.

    Raises:
        InputError: samples that do not pair, are too few or not finite, or k out of range.
    """
    x, z = paired(x, z)
    n = len(x)
    if not 1 <= k < n:
        raise InputError(f"expected k from 1 to {n - 1}, got {k}; use ksg:k=3.")
    draws = generator(seed, "ties")
    x, z = (_spread(t, draws) for t in (x, z))
    psi = torch.digamma
    nearer_x, nearer_z = (torch.cat(counts).double() for counts in zip(*_counts(x, z, k), strict=True))
    top = psi(torch.tensor([n, k], dtype=torch.float64))
    values = top.sum() - psi(nearer_x + 1) - psi(nearer_z + 1)
    cap = (top[0] - top[1]).item() - 1 / k
    note = f"neighbours that are all shared give psi(N) - psi({k}) - 1/{k} = {cap:.1f} nats, its cap; no bound"
    dims = max(x.shape[1], z.shape[1])
    if dims > TRUSTED_DIMS:
        note = f"{dims} dimensions are too many for neighbours (trusted to {TRUSTED_DIMS}): it falls short; {note}"
    low, high = mean_interval(values)
    return MIEstimate("ksg", min(values.mean().item(), cap), (low, min(high, cap)), cap, n, note)


def _spread(x: Tensor, draws: torch.Generator) -> Tensor:
    wide = x.double()
    apart = torch.randn(wide.shape, generator=draws, dtype=torch.float64).to(x.device)
    return standardised(wide, wide) + JITTER * apart


def _counts(x: Tensor, z: Tensor, k: int) -> list[tuple[Tensor, Tensor]]:
    """n_x and n_z, chunk by chunk."""
    found = []
    for rows in torch.arange(len(x)).split(ROWS):
        near_x, near_z = (torch.cdist(t[rows], t, p=float("inf")) for t in (x, z))
        for near in (near_x, near_z):
            near[torch.arange(len(rows)), rows] = float("inf")
        reach = torch.maximum(near_x, near_z).kthvalue(k, dim=1, keepdim=True).values
        found.append(((near_x < reach).sum(1), (near_z < reach).sum(1)))
    return found
