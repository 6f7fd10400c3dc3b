"""Differential privacy of noise on a bounded answer: what Gaussian and Laplace noise promise.

A mechanism is (epsilon, delta) *locally* differentially private where for any two inputs whatsoever, and any set of
answers, ``P(answer to one in set) <= exp(epsilon) * P(answer to the other in set) + delta``. Sensitivity is the largest
distance of two answers before the noise: 2 R where a norm is clipped at R. An epsilon of this size says nothing about
typical inputs; one in the hundreds says nothing at all.

Numbers are those of the ideal noise. A device draws float32 numbers whose tails end somewhere, which no formula covers.
"""

import math

import torch

from splitveil.core.errors import InputError

STEPS = 200
"""Halvings of the search; doubles run out earlier."""


def gaussian_delta(sensitivity: float, sigma: float, epsilon: float) -> float:
    """The least delta at which Gaussian noise is (epsilon, delta) private: exact, for any epsilon of 0 or more.

    ``Phi(s / 2 sigma - epsilon sigma / s) - exp(epsilon) Phi(-s / 2 sigma - epsilon sigma / s)`` with s the sensitivity
    (Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy", ICML 2018, theorem 8).

    Args:
        sensitivity: largest L2 distance of two answers.
        sigma: standard deviation of the noise on every element, in the same units.
        epsilon: in nats.

    Raises:
        InputError: a negative or infinite number.
    """
    _check(sensitivity, sigma, "sigma")
    if not epsilon >= 0:
        raise InputError(f"expected epsilon of 0 or more, got {epsilon}; use 1.")
    if sensitivity == 0 or sigma == 0:
        return float(sensitivity > 0)
    half, lost = sensitivity / sigma / 2, epsilon * sigma / sensitivity
    ends = torch.tensor([half - lost, -half - lost], dtype=torch.float64)
    first, second = torch.special.log_ndtr(ends).tolist()
    # exp(first) - exp(epsilon + second), whose second part is never the larger.
    return max(0.0, math.exp(first) * -math.expm1(min(0.0, epsilon + second - first)))


def gaussian_epsilon(sensitivity: float, sigma: float, delta: float = 1e-5) -> float:
    """The least epsilon at which Gaussian noise is (epsilon, delta) private, by bisection on `gaussian_delta`.

    Args:
        sensitivity: largest L2 distance of two answers.
        sigma: standard deviation of the noise on every element, in the same units; 0 gives infinity.
        delta: above 0 and below 1.

    Raises:
        InputError: a negative or infinite number, or delta out of range.
    """
    _check(sensitivity, sigma, "sigma")
    if not 0 < delta < 1:
        raise InputError(f"expected delta between 0 and 1, got {delta}; use 1e-5.")
    if gaussian_delta(sensitivity, sigma, 0.0) <= delta:
        return 0.0
    if sigma == 0:
        return math.inf
    low, high = 0.0, 1.0
    while gaussian_delta(sensitivity, sigma, high) > delta:
        low, high = high, 2 * high
    for _ in range(STEPS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if gaussian_delta(sensitivity, sigma, middle) <= delta else (middle, high)
    return high


def laplace_epsilon(sensitivity: float, scale: float) -> float:
    """The least epsilon of Laplace noise, with delta 0: sensitivity / scale (Dwork et al. 2006).

    Args:
        sensitivity: largest L1 distance of two answers; with D elements it is at most sqrt(D) times that of L2.
        scale: of the Laplace noise on every element, its standard deviation over sqrt(2); 0 gives infinity.

    Raises:
        InputError: a negative or infinite number.
    """
    _check(sensitivity, scale, "scale")
    if sensitivity == 0:
        return 0.0
    return sensitivity / scale if scale > 0 else math.inf


def _check(sensitivity: float, noise: float, name: str) -> None:
    if not (0 <= sensitivity < math.inf and 0 <= noise < math.inf):
        raise InputError(
            f"expected a finite sensitivity and {name} of 0 or more, got {sensitivity} and {noise}; clip the features "
            "first, then the sensitivity is twice the clip."
        )
