"""Differential privacy against the definition, integrated numerically."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from splitveil.core.errors import InputError
from splitveil.lab.metrics.bounds.accounting import gaussian_delta, gaussian_epsilon, laplace_epsilon


def excess(p: stats.rv_continuous, q: stats.rv_continuous, epsilon: float, reach: float) -> float:
    """Integral of max(0, p - exp(epsilon) q): the least delta, by definition."""
    t = np.linspace(-reach, reach, 400_001)
    return float(integrate.simpson(np.maximum(0, p.pdf(t) - math.exp(epsilon) * q.pdf(t)), x=t))


@pytest.mark.parametrize(("sensitivity", "sigma"), [(1.0, 1.0), (1.0, 4.0), (2.0, 0.5), (3.0, 10.0)])
@pytest.mark.parametrize("delta", [1e-2, 1e-5])
def test_epsilon_meets_the_definition_exactly(sensitivity: float, sigma: float, delta: float) -> None:
    epsilon = gaussian_epsilon(sensitivity, sigma, delta)
    assert gaussian_delta(sensitivity, sigma, epsilon) == pytest.approx(delta, rel=1e-6)
    p, q = stats.norm(sensitivity / 2, sigma), stats.norm(-sensitivity / 2, sigma)
    assert excess(p, q, epsilon, 12 * sigma + sensitivity) == pytest.approx(delta, rel=1e-3)


def test_the_gaussian_of_unit_ratio_has_the_known_epsilon() -> None:
    """Root of the analytic formula found by SciPy; the classical bound asks for more."""
    from scipy.optimize import brentq

    def curve(e: float) -> float:
        return float(stats.norm.cdf(0.5 - e) - math.exp(e) * stats.norm.cdf(-0.5 - e)) - 1e-5

    assert gaussian_epsilon(1.0, 1.0, 1e-5) == pytest.approx(brentq(curve, 0, 20), abs=1e-6)
    assert gaussian_epsilon(1.0, math.sqrt(2 * math.log(1.25e5)) / 0.5, 1e-5) < 0.5


def test_more_noise_is_more_privacy_down_to_none_lost() -> None:
    found = [gaussian_epsilon(1.0, s, 1e-5) for s in (1e-3, 0.01, 0.1, 1.0, 10.0, 1e3)]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(0.5e6, rel=0.02)  # (s / sigma)^2 / 2 where noise is next to none
    assert gaussian_epsilon(1.0, 1e7, 1e-5) == 0
    assert gaussian_epsilon(1.0, 0.0, 1e-5) == math.inf
    assert gaussian_epsilon(0.0, 0.0, 1e-5) == 0
    assert gaussian_epsilon(1.0, 1.0, 1e-7) > gaussian_epsilon(1.0, 1.0, 1e-3)
    assert gaussian_epsilon(10.0, 10.0) == pytest.approx(gaussian_epsilon(1.0, 1.0))


def test_laplace_by_the_definition() -> None:
    epsilon = laplace_epsilon(2.0, 0.8)
    assert epsilon == pytest.approx(2.5)
    p, q = stats.laplace(1, 0.8), stats.laplace(-1, 0.8)
    assert excess(p, q, epsilon + 1e-9, 40) == pytest.approx(0, abs=1e-9)
    assert excess(p, q, 0.9 * epsilon, 40) > 1e-3
    assert laplace_epsilon(1.0, 0.0) == math.inf


@pytest.mark.parametrize(
    ("sensitivity", "sigma", "delta"), [(-1.0, 1.0, 1e-5), (math.inf, 1.0, 1e-5), (1.0, 1.0, 0.0), (1.0, -1.0, 0.1)]
)
def test_bad_numbers_are_refused(sensitivity: float, sigma: float, delta: float) -> None:
    with pytest.raises(InputError, match="expected"):
        gaussian_epsilon(sensitivity, sigma, delta)
