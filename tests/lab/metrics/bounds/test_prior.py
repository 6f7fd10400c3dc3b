import pytest
import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.metrics.bounds.prior import (
    covariance,
    gaussian_information,
    gaussian_score,
    matched_scores,
    noise_score,
    smoothed,
)

DRAWS = torch.Generator().manual_seed(0)


def gaussian(count: int, d: int, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Draws and their covariance; its eigenvalues lie between low and high."""
    u = torch.linalg.qr(torch.randn(d, d, generator=DRAWS))[0]
    spread = torch.linspace(low, high, d)
    x = 0.5 + (torch.randn(count, d, generator=DRAWS) * spread.sqrt()) @ u.T
    return x, (u * spread) @ u.T


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_gaussian_score_of_gaussians(smoothing: float) -> None:
    x, spread = gaussian(20000, 12, 0.02, 0.3)
    wanted = torch.linalg.inv(spread + smoothing**2 * torch.eye(12)).trace().item()
    found = gaussian_score(x, smoothing=smoothing)
    assert found.trace == pytest.approx(wanted, rel=0.02)
    assert found.at_least == found.trace <= found.at_most
    assert (found.method.split(",")[0], found.smoothing, found.samples, found.d) == ("gaussian", smoothing, 20000, 12)
    assert gaussian_information(x, smoothing=smoothing).trace().item() == pytest.approx(found.trace, rel=1e-9)


def two_points(s: float) -> float:
    """Information of 0 or 1, blurred by s, by quadrature of p'^2 / p."""
    at = torch.linspace(-2, 3, 20001, dtype=torch.float64)
    bumps = [torch.exp(-((at - c) ** 2) / (2 * s**2)) for c in (0.0, 1.0)]
    p = sum(bumps, torch.zeros_like(at))
    slope = sum((-(at - c) / s**2 * b for c, b in zip((0.0, 1.0), bumps, strict=True)), torch.zeros_like(at))
    return ((slope**2 / p).sum() / p.sum()).item()


def test_other_densities_tell_more_than_the_gaussian_of_their_covariance() -> None:
    s, true = 0.2, two_points(0.2)
    x = (torch.rand(20000, 1, generator=DRAWS) < 0.5).float()
    assert gaussian_score(x, smoothing=s).trace < 0.3 * true < true < noise_score(1, s).at_most


@pytest.mark.parametrize("variance", [0.02, 0.2])
def test_matched_scores_of_white_gaussians(variance: float) -> None:
    s = 0.3
    x = 0.5 + variance**0.5 * torch.randn(1000, 1, 6, 6, generator=DRAWS)
    found = matched_scores(x, smoothing=s, epochs=25, width=8)
    true = 36 / (variance + s**2)
    assert found.score.trace == pytest.approx(true, rel=0.1)
    assert 0.85 * true < found.score.at_least < 1.03 * true
    assert found.score.at_most == pytest.approx(36 / s**2)
    assert found.information.trace().item() == pytest.approx(found.score.trace)
    assert "denoising score matching" in found.score.method


def test_matched_scores_of_correlated_gaussians() -> None:
    """Each image has a brightness of its own beside white noise."""
    s = 0.2
    x = 0.5 + 0.3 * torch.randn(1000, 1, 1, 1, generator=DRAWS) + 0.1 * torch.randn(1000, 1, 4, 4, generator=DRAWS)
    found = matched_scores(x, smoothing=s, epochs=40, width=8)
    true = 15 / (0.1**2 + s**2) + 1 / (0.1**2 + s**2 + 16 * 0.3**2)
    white = 16 / (0.1**2 + 0.3**2 + s**2)
    assert white < 0.5 * true
    assert found.score.trace == pytest.approx(true, rel=0.15)
    assert 0.85 * true < found.score.at_least < 1.03 * true


def test_matched_scores_see_what_a_gaussian_does_not() -> None:
    """Pixels are 0 or 1: the blurred density has two bumps, and its score is far from linear."""
    x = (torch.rand(800, 1, 6, 6, generator=DRAWS) < 0.5).float()
    found = matched_scores(x, smoothing=0.2, epochs=40, width=16, lr=5e-3)
    true = 36 * two_points(0.2)
    assert gaussian_score(x, smoothing=0.2).trace < 0.3 * true
    assert 0.8 * true < found.score.at_least < 1.03 * true
    assert found.score.trace == pytest.approx(true, rel=0.15)


def test_matched_scores_are_repeatable_and_leave_the_global_generator_alone() -> None:
    x = torch.rand(40, 1, 4, 4, generator=DRAWS)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two = (matched_scores(x, epochs=2, width=4, seed=3).score for _ in range(2))
    assert one == two
    assert torch.equal(torch.get_rng_state(), before)


def test_smoothing() -> None:
    x = torch.rand(500, 1, 4, 4, generator=DRAWS)
    assert (smoothed(x, 0.1) - x).std().item() == pytest.approx(0.1, rel=0.05)
    assert torch.equal(smoothed(x, 0.1, 3), smoothed(x, 0.1, 3))
    assert torch.equal(smoothed(x, 0.0), x)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="at least 2 images"):
        covariance(torch.rand(1, 4), 0.1)
    with pytest.raises(InputError, match="expected a smoothing of 0 or more"):
        gaussian_score(torch.rand(4, 4), smoothing=-0.1)
    with pytest.raises(InputError, match="expected a smoothing"):
        noise_score(4, 0.0)
    with pytest.raises(InputError, match="use gaussian_score"):
        matched_scores(torch.rand(100, 8))
