import math

import pytest
import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.metrics.bounds.dfil import floor_any
from splitveil.lab.metrics.bounds.spectrum import ceiling, floor_spectrum, mean_information, null_space_estimate, rtc

DRAWS = torch.Generator().manual_seed(0)
D = 12


def random_prior() -> Tensor:
    u: Tensor = torch.linalg.qr(torch.randn(D, D, generator=DRAWS, dtype=torch.float64))[0]
    return (u * torch.linspace(0.01, 0.5, D, dtype=torch.float64)) @ u.T


PRIOR = random_prior()
S = torch.linalg.inv(PRIOR)


def reading(features: int) -> Tensor:
    return torch.randn(features, D, generator=DRAWS, dtype=torch.float64)


@pytest.mark.parametrize("features", [3, 20])
def test_the_floor_is_the_best_guess_of_gaussians(features: int) -> None:
    """Error of the conditional mean, in its other form: what the gain takes off the prior's covariance."""
    a, sigma = reading(features), 0.4
    x = torch.randn(3, D, generator=DRAWS, dtype=torch.float64)
    fisher = mean_information(lambda t: t @ a.T, x, sigma)
    assert torch.allclose(fisher, a.T @ a / sigma**2)
    gain = PRIOR @ a.T @ torch.linalg.inv(a @ PRIOR @ a.T + sigma**2 * torch.eye(features, dtype=torch.float64))
    best = (PRIOR - gain @ a @ PRIOR).trace().item() / D
    found = floor_spectrum(fisher, S)
    assert found == pytest.approx(best, rel=1e-9)
    assert found > floor_any(fisher.trace().item(), S.trace().item(), D)


def test_without_noise_what_is_not_read_remains() -> None:
    """The prior's covariance of the unread directions given the read ones, as the noise goes to 0."""
    a = reading(5)
    gram = mean_information(lambda t: t @ a.T, torch.zeros(1, D, dtype=torch.float64))
    limit = floor_spectrum(gram / 1e-4**2, S)
    assert null_space_estimate(gram, S) == pytest.approx(limit, rel=1e-4)
    assert null_space_estimate(1e6 * gram, S) == pytest.approx(null_space_estimate(gram, S), rel=1e-9)
    full = reading(30)
    assert null_space_estimate(full.T @ full, S) == 0
    assert null_space_estimate(torch.zeros(D, D), S) == pytest.approx(ceiling(S))


def test_rtc_runs_from_nothing_to_everything() -> None:
    assert ceiling(S) == pytest.approx(PRIOR.trace().item() / D, rel=1e-9)
    assert rtc(ceiling(S), floor_spectrum(torch.zeros(D, D), S)) == pytest.approx(0, abs=1e-9)
    assert rtc(0.2, 0.1) == pytest.approx(math.log(2))
    assert rtc(0.2, 0.0) == math.inf


def test_probes_estimate_the_information() -> None:
    a = reading(8)
    x = torch.zeros(100, D, dtype=torch.float64)
    probed = mean_information(lambda t: t @ a.T, x, 0.5, probes=40)
    exact = a.T @ a / 0.25
    assert ((probed - exact).norm() / exact.norm()).item() < 0.05


def test_scaling_and_order_change_nothing() -> None:
    a, x = reading(8), torch.randn(6, D, generator=DRAWS, dtype=torch.float64)

    def f(t: Tensor) -> Tensor:
        return torch.tanh(t @ a.T)

    one = mean_information(f, x, 0.5)
    assert torch.allclose(one, mean_information(lambda t: 10 * f(t), x.flip(0), 5.0))
    parts = [mean_information(f, part, 0.5) for part in x.split(2)]
    assert torch.allclose(one, torch.stack(parts).mean(0))


def test_bad_input() -> None:
    with pytest.raises(InputError, match="positive definite"):
        ceiling(torch.zeros(D, D))
    with pytest.raises(InputError, match="two matrices"):
        floor_spectrum(torch.eye(3), torch.eye(4))
