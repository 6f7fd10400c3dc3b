"""A few whitened principal components of an image or a feature map, for estimators that cannot take thousands."""

from dataclasses import dataclass

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.metrics.information.base import flattened, split_samples
from splitveil.lab.seeds import derive

SPARE = 8
"""Directions beyond those asked for, for the randomised decomposition."""
PASSES = 4
SMALLEST = 1e-6
"""Components whose variance is below this share of the largest are left out: whitening would make noise of them."""


@dataclass(frozen=True, slots=True)
class Projection:
    """Centre, then project. mean: (D,); directions: (D, r), scaled so that each component has spread 1."""

    mean: Tensor
    directions: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x: (N, ...) -> (N, r), float32."""
        return ((flattened(x, "x").float() - self.mean) @ self.directions).float()


def principal(x: Tensor, dims: int, *, seed: int = 0) -> Projection:
    """The leading components of the rows of x, whitened; by randomised decomposition (Halko et al. 2011).

    Args:
        x: (n, ...) to fit on.
        dims: components at most; fewer where x has fewer.
        seed: of the randomised decomposition.

    Raises:
        InputError: dims below 1, fewer than two samples, or x constant or not finite.
    """
    flat = flattened(x, "x").float()
    if dims < 1 or len(flat) < 2:
        raise InputError(f"expected dims >= 1 and 2 samples, got {dims} and {len(flat)}; use for example dims=32.")
    mean = flat.mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "principal"))
        rank = min(*flat.shape, dims + SPARE)
        _, size, directions = torch.pca_lowrank(flat - mean, q=rank, center=False, niter=PASSES)
    variance = size[:dims].double().square() / len(flat)
    kept = variance > SMALLEST * variance[0]
    if not bool(kept.any()):
        raise InputError("expected samples that differ, got a constant; there is nothing to project.")
    return Projection(mean, directions[:, :dims][:, kept] / variance[kept].sqrt().float())


def projected(x: Tensor, dims: int = 32, *, seed: int = 0) -> Tensor:
    """Whitened principal components of x, fitted on what an estimator of the same seed trains on. (N, ...) -> (N, r).

    A function of x alone or of z alone adds no information (the data-processing inequality): the information between
    two projections is at most I(x;z). An estimate on projections that is a lower bound of theirs (InfoNCE in
    expectation, MINE up to sampling error) is therefore one of I(x;z) too; CLUB and KSG tell of the projections only.

    Args:
        x: (N, ...), images or features.
        dims: components at most.
        seed: the estimator's.

    Raises:
        InputError: dims below 1, or x constant or not finite.
    """
    parts = split_samples(len(x), seed)
    return principal(x[parts.train], dims, seed=seed)(x)
