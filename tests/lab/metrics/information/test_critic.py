"""MINE and InfoNCE where the answer is known, inside their stated range and outside of it."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.metrics.information import infonce, mine
from splitveil.lab.metrics.information.base import MIEstimate, Validity
from splitveil.lab.metrics.information.critic import Critic
from tests.lab.metrics.information.gaussians import gaussians, uncorrelated

Estimator = Callable[..., MIEstimate]
BOTH = pytest.mark.parametrize("estimate", [mine.mine_estimate, infonce.infonce_estimate], ids=["mine", "infonce"])
TABLE = [(mine.mine_estimate, v) for v in mine.RANGE] + [(infonce.infonce_estimate, v) for v in infonce.RANGE]
CASES = [
    pytest.param(estimate, v, nats, id=f"{estimate.__name__}-{v.dims}d-{nats}")
    for estimate, v in TABLE
    for nats in (2.0, v.nats)
]
NOISE = 0.3
"""Nats by which another split of 1,000 samples at 2 nats may move an estimate."""


@pytest.mark.parametrize(("estimate", "stated", "nats"), CASES)
def test_the_stated_range_holds(estimate: Estimator, stated: Validity, nats: float) -> None:
    found = estimate(*gaussians(nats, stated.dims, stated.samples))
    assert found.nats == pytest.approx(nats, abs=stated.error)
    assert found.samples <= stated.samples // 2 + 1
    assert found.interval is not None
    assert found.interval[0] <= found.nats <= found.interval[1]


@BOTH
def test_nothing_bounds_the_critic_at_one_nat(estimate: Estimator) -> None:
    assert estimate(*gaussians(2.0, 2, 2000)).nats > 1.5


@BOTH
def test_what_no_linear_map_finds_is_found(estimate: Estimator) -> None:
    x, z = uncorrelated(1.5, 4000)
    assert abs(torch.corrcoef(torch.cat([x, z], 1).T)[0, 1]) < 0.1
    assert 1.1 < estimate(x, z).nats < 1.7


@BOTH
def test_random_partners_share_nothing(estimate: Estimator) -> None:
    x, z = gaussians(4.0, 8, 2000)
    found = estimate(x, z[torch.randperm(2000, generator=torch.Generator().manual_seed(1))])
    assert abs(found.nats) < 0.05


@BOTH
def test_scale_place_order_and_channels_do_not_matter(estimate: Estimator) -> None:
    x, z = gaussians(2.0, 4, 1000)
    first = estimate(x, z).nats
    assert estimate(x, 10 * z).nats == pytest.approx(first, abs=0.02)
    assert estimate(3 * x - 1, z * torch.logspace(-2, 2, 4) + 5).nats == pytest.approx(first, abs=0.02)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(1))
    assert estimate(x[order], z[order]).nats == pytest.approx(first, abs=NOISE)
    assert estimate(x, z.flip(1)).nats == pytest.approx(first, abs=NOISE)


def test_infonce_ends_at_its_cap() -> None:
    x, _ = gaussians(1.0, 8, 1000)
    found = infonce.infonce_estimate(x, x)
    assert found.cap == pytest.approx(math.log(500))
    assert found.saturated
    assert 0.9 * math.log(500) < found.nats <= math.log(500)


def test_infonce_misses_what_lies_above_its_cap_where_mine_does_not() -> None:
    x, z = gaussians(8.0, 2, 2000)
    assert infonce.infonce_estimate(x, z).nats < math.log(1000) < mine.mine_estimate(x, z).nats


@BOTH
def test_little_in_many_dimensions_is_missed_and_never_made_up(estimate: Estimator) -> None:
    assert -0.05 < estimate(*gaussians(0.5, 32, 1000)).nats < 0.3


def test_mine_is_cut_off_where_no_pair_speaks() -> None:
    x, _ = gaussians(1.0, 8, 1000)
    found = mine.mine_estimate(x, x)
    assert found.cap == pytest.approx(math.log(500 * 499))
    assert math.log(500) < found.nats <= math.log(500 * 499)
    assert found.interval is not None
    assert found.interval[0] <= found.nats <= found.interval[1] <= math.log(500 * 499)


def test_estimates_repeat_and_leave_the_global_generator_alone() -> None:
    x, z = gaussians(1.0, 2, 500)
    torch.manual_seed(5)
    first, drawn = mine.mine_estimate(x, z, steps=20), torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert mine.mine_estimate(x, z, steps=20) == first
    assert mine.mine_estimate(x, z, steps=20, seed=1) != first


def test_any_shape_is_flattened() -> None:
    x, z = gaussians(1.0, 8, 500)
    flat = infonce.infonce_estimate(x, z, steps=20)
    assert infonce.infonce_estimate(x.reshape(-1, 2, 2, 2), z.reshape(-1, 8, 1, 1), steps=20) == flat


def test_a_constant_tells_nothing() -> None:
    x, _ = gaussians(1.0, 2, 500)
    assert abs(mine.mine_estimate(x, torch.ones(500, 3), steps=20).nats) < 0.05


def test_the_bounds_are_their_formulas() -> None:
    scores = torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    off = [scores[i, j].item() for i in range(7) for j in range(7) if i != j]
    expected = scores.diagonal().mean().item() - math.log(sum(math.exp(t) for t in off) / 42)
    assert mine.donsker_varadhan(scores) == pytest.approx(expected)
    rows = [scores[i, i] - torch.log(scores[i].exp().mean()) for i in range(7)]
    columns = [scores[i, i] - torch.log(scores[:, i].exp().mean()) for i in range(7)]
    expected_rows: Tensor = (torch.stack(rows) + torch.stack(columns)) / 2
    assert torch.allclose(infonce.contrast_values(scores), expected_rows)


def test_mines_standard_error_is_what_repeats_show() -> None:
    rho, values, errors = 0.8, [], []
    for seed in range(150):
        x, z = torch.randn(2, 200, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        z = rho * x + (1 - rho**2) ** 0.5 * z
        scores = (rho * x[:, None] * z - 0.5 * rho**2 * (x[:, None] ** 2 + z**2)) / (1 - rho**2)
        values.append(mine.donsker_varadhan(scores))
        errors.append(mine.spread_of_bound(scores))
    truth = torch.tensor(values).std().item()
    assert truth == pytest.approx(torch.tensor(errors).mean().item(), rel=0.2)
    assert torch.tensor(values).mean().item() == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.02)


def test_the_corrected_gradient_divides_by_the_moving_average() -> None:
    torch.manual_seed(0)
    critic = Critic(2, 2, width=8, out=4)
    objective = mine.DonskerVaradhan(critic)
    x, z = gaussians(1.0, 2, 32)
    objective(x, z)
    before = objective.denominator.exp()
    objective(x + 1, z)
    scores = critic(x + 1, z).detach()
    now = scores[~torch.eye(32, dtype=torch.bool)].exp().mean()
    assert torch.allclose(objective.denominator.exp(), (1 - mine.RATE) * before + mine.RATE * now, rtol=1e-4)


def test_the_start_is_the_log_density_ratio_of_gaussians() -> None:
    x, z = gaussians(2.0, 2, 8000)
    critic = Critic(2, 2)
    with torch.no_grad():
        for tower in (critic.of_x, critic.of_z):
            for parameter in tower.parameters():
                parameter.zero_()
        critic.start_linear(x, z)
        scores = critic(x[:500], z[:500])
    both = torch.cat([x, z], 1).double()
    joint = torch.distributions.MultivariateNormal(both.mean(0), both.T.cov())
    alone = [torch.distributions.MultivariateNormal(t.double().mean(0), t.double().T.cov()) for t in (x, z)]
    ratio = joint.log_prob(both[:500]) - alone[0].log_prob(x[:500].double()) - alone[1].log_prob(z[:500].double())
    own = scores.diagonal().double()
    assert torch.allclose(own - own.mean(), ratio - ratio.mean(), atol=0.1)


def test_input_that_cannot_be_used() -> None:
    x, z = gaussians(1.0, 2, 100)
    with pytest.raises(InputError, match="as many samples of x as of z"):
        mine.mine_estimate(x, z[:50])
    with pytest.raises(InputError, match="at least 64 samples"):
        infonce.infonce_estimate(x[:10], z[:10])
    with pytest.raises(InputError, match="finite z"):
        mine.mine_estimate(x, z / 0)
    with pytest.raises(InputError, match="use mine:steps=200"):
        mine.mine_estimate(x, z, steps=0)
