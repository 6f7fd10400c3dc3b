"""Floors against the error of the best guess there is: the conditional mean, known for Gaussians."""

import math

import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.defenses.noise import GaussianNoise
from splitveil.lab.metrics.bounds.dfil import certificate, floor_any, floor_unbiased, sigma_for_floor
from splitveil.lab.metrics.bounds.fisher import fisher_trace
from splitveil.lab.metrics.bounds.prior import ScoreFunction, gaussian_score, noise_score, smoothed

DRAWS = torch.Generator().manual_seed(0)
D, SIGMA = 16, 0.3


def orthonormal() -> Tensor:
    u: Tensor = torch.linalg.qr(torch.randn(D, D, generator=DRAWS, dtype=torch.float64))[0]
    return u


def wiener(a: Tensor, prior: Tensor, sigma: float) -> float:
    """Error per element of the conditional mean of x ~ N(m, prior) given a x + sigma n."""
    posterior: Tensor = torch.linalg.inv(torch.linalg.inv(prior) + a.T @ a / sigma**2)
    return posterior.trace().item() / len(prior)


def known(prior: Tensor) -> float:
    information: Tensor = torch.linalg.inv(prior)
    return information.trace().item()


@pytest.mark.parametrize("features", [4, 16, 40])
@pytest.mark.parametrize("sigma", [0.01, 0.3, 10.0])
def test_the_best_guess_of_a_gaussian_never_beats_the_floor(features: int, sigma: float) -> None:
    a = torch.randn(features, D, generator=DRAWS, dtype=torch.float64)
    u = orthonormal()
    prior = u @ torch.diag(torch.linspace(0.01, 0.3, D, dtype=torch.float64)) @ u.T
    trace = fisher_trace(lambda x: x @ a.T, torch.randn(2, D, dtype=torch.float64, generator=DRAWS), sigma).mean
    floor = floor_any(trace, known(prior), D)
    assert 0 < floor < wiener(a, prior, sigma)


def test_the_floor_is_tight_for_white_data_and_a_rotation() -> None:
    a, prior = orthonormal(), 0.04 * torch.eye(D, dtype=torch.float64)
    x = torch.randn(2, D, dtype=torch.float64, generator=DRAWS)
    found = fisher_trace(lambda x: x @ a.T, x, SIGMA)
    assert floor_any(found.mean, known(prior), D) == pytest.approx(wiener(a, prior, SIGMA), rel=1e-9)
    assert floor_unbiased(found.dfil).tolist() == pytest.approx([SIGMA**2] * 2, rel=1e-9)


def test_a_measured_error_lies_above_the_floor_where_f_bends() -> None:
    """The ridge guess of x from tanh features with noise, x standard normal."""
    a = torch.randn(D, D, generator=DRAWS) / 4
    x = torch.randn(20000, D, generator=DRAWS)
    z = torch.tanh(x @ a.T) + SIGMA * torch.randn(x.shape, generator=DRAWS)
    half = len(x) // 2
    weights = torch.linalg.lstsq(z[:half], x[:half]).solution
    error = (z[half:] @ weights - x[half:]).square().mean().item()
    floor = floor_any(fisher_trace(lambda t: torch.tanh(t @ a.T), x[:200], SIGMA).mean, D, D)
    assert 0.2 * error < floor < error


def edge() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU()).eval()


X = torch.rand(32, 1, 6, 6, generator=DRAWS)


def test_a_deterministic_edge_has_no_certificate() -> None:
    found = certificate(edge(), X, 0.0, score=gaussian_score(X))
    assert found.floor is None
    assert found.unbiased is None
    assert found.words == "no certificate: nothing random leaves the device"
    some = torch.ones(4, 6, 6)
    some[0] = 0
    assert certificate(edge(), X, some, score=gaussian_score(X)).words.endswith(
        "36 of 144 features leave the device without noise"
    )


def test_a_certificate_tells_what_it_is_made_of() -> None:
    score = gaussian_score(X)
    found = certificate(edge(), X, 0.5, score=score)
    trace = fisher_trace(edge(), smoothed(X, score.smoothing), 0.5)
    assert found.floor == pytest.approx(36 / (trace.mean + score.trace))
    assert found.unbiased == pytest.approx(36 / trace.mean)
    assert found.trace_error == pytest.approx(trace.standard_error)
    assert found.surest == pytest.approx(36 / (trace.mean + 36 / 0.01))
    assert "blurred by 0.1" in found.words
    assert "gaussian" in found.words


def test_scaling_buys_nothing_and_repetition_costs() -> None:
    f, score = edge(), gaussian_score(X)
    one = certificate(f, X, 0.5, score=score)
    ten = certificate(lambda x: 10 * f(x), X, 5.0, score=score)
    assert ten.floor == pytest.approx(one.floor, rel=1e-5)
    many = certificate(f, X, 0.5, score=score, queries=16)
    quarter = certificate(f, X, 0.125, score=score)
    assert many.floor == pytest.approx(quarter.floor, rel=1e-5)
    assert "16 queries" in many.words


@pytest.mark.parametrize("queries", [1, 8])
@pytest.mark.parametrize("estimate", [True, False], ids=["any", "unbiased"])
def test_the_noise_found_for_a_floor_guarantees_it(queries: int, estimate: bool) -> None:
    score, mse = gaussian_score(X, smoothing=0.2), 0.015
    pattern = torch.linspace(0.5, 2, 4).reshape(4, 1, 1)
    factor = sigma_for_floor(edge(), X, mse, score=score if estimate else None, pattern=pattern, queries=queries)
    sharp = ScoreFunction(score.trace, score.at_least, score.at_most, score.method, 0.0, score.samples, score.d)
    found = certificate(edge(), X, factor * pattern, score=score if estimate else sharp, queries=queries)
    assert (found.floor if estimate else found.unbiased) == pytest.approx(mse, rel=1e-4)


def test_noise_cannot_guarantee_more_than_the_prior() -> None:
    score = noise_score(36)
    with pytest.raises(InputError, match=r"floor below 0\.01"):
        sigma_for_floor(edge(), X, 0.02, score=score)
    assert sigma_for_floor(lambda x: torch.zeros(len(x), 2), X, 0.005, score=score) == 0


def test_clipping_belongs_to_the_deterministic_part() -> None:
    """Beyond the clip z can only turn: what points outwards is told by no feature."""
    defense = GaussianNoise(sigma=0.5, clip=0.1)
    x = torch.rand(16, 1, 4, 4, generator=DRAWS) + 0.5
    defense.calibrate(x)
    sigma = defense.spread(x)
    assert sigma is not None
    found = fisher_trace(defense.mean, x, sigma).values
    shrink = defense.radius.double() / x.flatten(1).double().norm(dim=1)
    assert torch.allclose(found, 15 * shrink**2 / sigma.flatten()[0].double() ** 2, rtol=1e-4)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="elements, got 16"):
        certificate(edge(), X, 0.5, score=noise_score(16))
    with pytest.raises(InputError, match="1 query or more"):
        certificate(edge(), X, 0.5, score=noise_score(36), queries=0)
    with pytest.raises(InputError, match="mean squared error above 0"):
        sigma_for_floor(edge(), X, math.nan, score=None)
    with pytest.raises(InputError, match="estimate Tr S"):
        floor_any(0.0, 0.0, 4)
