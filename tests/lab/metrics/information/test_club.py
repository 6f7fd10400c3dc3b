"""CLUB against its own closed form, which lies above the information."""

import math

import pytest
import torch

from splitveil.core.errors import InputError
from splitveil.lab.metrics.information.base import Validity
from splitveil.lab.metrics.information.club import RANGE, ConditionalGaussian, club_estimate, club_values
from tests.lab.metrics.information.gaussians import gaussians, squared_correlation


def closed_form(nats: float, dims: int) -> float:
    share = squared_correlation(nats, dims)
    return dims * share / (1 - share)


@pytest.mark.parametrize("nats", [2.0, None])
@pytest.mark.parametrize("stated", RANGE, ids=lambda v: f"{v.dims}d")
def test_the_stated_range_holds(stated: Validity, nats: float | None) -> None:
    nats = nats or stated.nats
    found = club_estimate(*gaussians(nats, stated.dims, stated.samples))
    assert found.nats == pytest.approx(closed_form(nats, stated.dims), rel=stated.error)
    assert found.nats > nats
    assert found.cap is None


def test_a_q_that_is_wrong_is_no_upper_bound() -> None:
    """Even and odd numbers tell x apart to the last nat, and no Gaussian sees it."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randint(2, (4000, 1), generator=draws).float()
    z = 2 * torch.randint(8, (4000, 1), generator=draws) + x + 0.01 * torch.randn(4000, 1, generator=draws)
    assert club_estimate(x, z).nats < 0.1 < math.log(2)


def test_random_partners_share_nothing() -> None:
    x, z = gaussians(4.0, 8, 2000)
    found = club_estimate(x, z[torch.randperm(2000, generator=torch.Generator().manual_seed(1))])
    assert abs(found.nats) < 0.3


def test_scale_place_order_and_channels_do_not_matter() -> None:
    x, z = gaussians(2.0, 8, 2000)
    first = club_estimate(x, z).nats
    assert club_estimate(x, 10 * z).nats == pytest.approx(first, rel=0.02)
    assert club_estimate(3 * x - 1, z * torch.logspace(-2, 2, 8) + 5).nats == pytest.approx(first, rel=0.02)
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(1))
    assert club_estimate(x[order], z[order]).nats == pytest.approx(first, rel=0.15)
    assert club_estimate(x, z.flip(1)).nats == pytest.approx(first, rel=0.15)


def test_all_pairs_in_closed_form_are_all_pairs() -> None:
    draws = torch.Generator().manual_seed(0)
    mean, log_variance, z = torch.randn(3, 40, 3, generator=draws, dtype=torch.float64)
    q = torch.distributions.Normal(mean[:, None], (0.5 * log_variance).exp()[:, None])
    log_q = q.log_prob(z[None]).sum(2)
    others = (log_q.sum(1) - log_q.diagonal()) / 39
    assert torch.allclose(club_values(mean, log_variance, z), log_q.diagonal() - others)


def test_the_start_is_least_squares() -> None:
    x, _ = gaussians(1.0, 3, 400)
    q = ConditionalGaussian(3, 2, width=8)
    weights = torch.tensor([[1.0, -2.0], [0.0, 1.0], [0.5, 0.0]])
    q.start_linear(x, x @ weights + torch.tensor([1.0, -1.0]))
    mean, log_variance = q(x)
    assert torch.allclose(mean, x @ weights + torch.tensor([1.0, -1.0]), atol=0.02)
    assert (log_variance < -8).all()


def test_input_that_cannot_be_used() -> None:
    x, z = gaussians(1.0, 2, 100)
    with pytest.raises(InputError, match="use club:steps=200"):
        club_estimate(x, z, steps=0)
    with pytest.raises(InputError, match="finite x"):
        club_estimate(x / 0, z)
