"""Floors that read the whole spectrum of the information, not its trace only (Hwang, Li, Maeng: spectrum-aware dFIL).

A few directions of an image carry most of what z tells; a trace spreads them over all. The matrices keep them apart:

* `floor_spectrum`, corollary 1: a floor where there is noise, as `dfil.floor_any` but never lower.
* `null_space_estimate`, corollary 2: without noise, through the directions that f does not read. An estimate, not a
  guarantee: it takes the null space of a mean for that of every image, and the score for known.

The paper's setting: 256 images, tau = 1e-4, blur of 0.1, ReLU and max pooling replaced by smooth ones; its score comes
from a diffusion model, here from `prior`. E[I] from few images or probes errs towards a higher floor: the inverse is
convex.
"""

import math

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.metrics.bounds.fisher import Encoder, jacobian_rows

TAU = 1e-4
"""Share of the largest eigenvalue below which f reads nothing of a direction (relative: our reading)."""


def mean_information(
    f: Encoder, x: Tensor, sigma: float | Tensor = 1.0, *, probes: int | None = None, seed: int = 0
) -> Tensor:
    """E[I], or the Gram matrix E[J^T J] of an f without noise at sigma = 1.

    Args:
        f: the deterministic part: (N, ...) -> (N, *cut).
        x: (N, ...), blurred as the score was.
        sigma: as in `fisher_trace`.
        probes: rows an image, random; None for all features' rows.
        seed: of the probes.

    Returns:
        (d, d), float64.

    Raises:
        InputError: as `fisher_trace`.
    """
    d = x[0].numel()
    total = torch.zeros(d, d, dtype=torch.float64)
    for _, rows in jacobian_rows(f, x, sigma, probes=probes, seed=seed):
        total.addmm_(rows.T, rows)
    return total / (len(x) * (probes or 1))


def floor_spectrum(fisher: Tensor, information: Tensor) -> float:
    """Mean squared error per element that no adversary beats, Tr((E[I] + S)^-1) / d (corollary 1).

    Args:
        fisher: E[I], (d, d).
        information: S, (d, d), of the density that fisher's inputs came from.

    Raises:
        InputError: matrices of other shapes, or a direction about which neither tells anything.
    """
    _check(fisher, information)
    return _mean_inverse(fisher.double() + information.double(), len(fisher))


def null_space_estimate(gram: Tensor, information: Tensor, tau: float = TAU) -> float:
    """Estimated error per element without noise, Tr((U^T S U)^-1) / d, U the null space of E[J^T J] (corollary 2).

    Args:
        gram: E[J^T J], (d, d).
        information: S, (d, d).
        tau: share of the largest eigenvalue that still counts as zero.

    Returns:
        0 where f reads every direction.

    Raises:
        InputError: as `floor_spectrum`.
    """
    _check(gram, information)
    values, vectors = torch.linalg.eigh(gram.double())
    null = vectors[:, values <= tau * values[-1].clamp_min(0)]
    if null.shape[1] == 0:
        return 0.0
    return _mean_inverse(null.T @ information.double() @ null, len(gram))


def ceiling(information: Tensor) -> float:
    """The floor of an adversary who reads nothing, Tr(S^-1) / d. information: S, (d, d).

    Raises:
        InputError: a direction about which S tells nothing.
    """
    return _mean_inverse(information.double(), len(information))


def rtc(ceiling: float, bound: float) -> float:
    """``ln(ceiling / bound)``: 0 where z adds nothing to the prior, inf where nothing is bounded.

    The paper reads values below 0.01 as practically nothing recovered, but found digits legible at 0.005.
    """
    return math.log(ceiling / bound) if bound > 0 else math.inf


def _mean_inverse(matrix: Tensor, d: int) -> float:
    values: Tensor = torch.linalg.eigvalsh(matrix)
    if not values[0] > 0:
        raise InputError(
            f"expected a positive definite information, got a smallest eigenvalue of {values[0].item():.3g}; "
            "use gaussian_information with smoothing, or scores of more images than the inputs have elements."
        )
    return values.reciprocal().sum().item() / d


def _check(first: Tensor, second: Tensor) -> None:
    if first.ndim != 2 or first.shape[0] != first.shape[1] or first.shape != second.shape:
        raise InputError(
            f"expected two matrices (d, d), got {tuple(first.shape)} and {tuple(second.shape)}; "
            "take both from inputs of one shape."
        )
