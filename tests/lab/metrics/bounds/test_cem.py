import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.metrics.bounds.cem import clusters, floor_cem, gaussian_entropy, information_bound, noise_entropy

DRAWS = torch.Generator().manual_seed(0)
N, D, SIGMA = 20000, 4, 0.5
ONE = torch.zeros(N, dtype=torch.int64)


def gaussian(*spread: float) -> Tensor:
    return torch.randn(N, len(spread), generator=DRAWS) * torch.tensor(spread).sqrt()


def test_independent_gaussians_have_the_information_of_their_channels() -> None:
    spread = (0.1, 1.0, 4.0)
    exact = sum(0.5 * math.log1p(v / SIGMA**2) for v in spread)
    z = gaussian(*spread)
    assert information_bound(z, SIGMA, ONE) == pytest.approx(exact, rel=0.01)
    isotropic = 1.5 * math.log1p(sum(spread) / 3 / SIGMA**2)
    assert information_bound(z, SIGMA, ONE, form="isotropic") == pytest.approx(isotropic, rel=0.01)
    assert isotropic > exact


def test_groups_tell_which_one_and_where_in_it() -> None:
    """Two far points tell one bit, however far; one group with them both would tell more."""
    z = torch.tensor([-1000.0, 1000.0]).repeat(N // 2)[:, None]
    groups = clusters(z[:200], count=2)
    assert information_bound(z[:200], SIGMA, groups) == pytest.approx(math.log(2))
    assert information_bound(z, SIGMA, ONE) > 5 * math.log(2)


def test_the_bound_lies_above_the_information_of_a_mixture() -> None:
    """Against the entropy of z by quadrature, for overlapping groups."""
    centres, sigma = torch.tensor([-1.0, 1.0], dtype=torch.float64), 0.8
    pick = torch.arange(N) % 2
    z = centres[pick, None] + 0.3 * torch.randn(N, 1, generator=DRAWS, dtype=torch.float64)
    at, total = torch.linspace(-8, 8, 4001, dtype=torch.float64), 0.3**2 + sigma**2
    p = torch.exp(-((at[:, None] - centres) ** 2) / (2 * total)).mean(1) / math.sqrt(2 * math.pi * total)
    entropy = -(p * p.clamp_min(1e-300).log()).sum().item() * 0.004
    exact = entropy - 0.5 * math.log(2 * math.pi * math.e * sigma**2)
    for groups in (pick, ONE, clusters(z, count=4)):
        assert exact < information_bound(z, sigma, groups) < 4 * exact


@pytest.mark.parametrize("form", ["isotropic", "diagonal"])
def test_scaling_order_and_repetition(form: Literal["isotropic", "diagonal"]) -> None:
    z, sigma = gaussian(0.1, 1.0, 4.0), torch.tensor([0.2, 0.5, 1.0])
    groups = torch.randint(3, (N,), generator=DRAWS)
    found = [
        information_bound(z, sigma, groups, form=form),
        information_bound(10 * z, 10 * sigma, groups, form=form),
        information_bound(z.flip(0), sigma, groups.flip(0), form=form),
    ]
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)
    many = information_bound(z, sigma, groups, form=form, queries=4)
    assert many == pytest.approx(information_bound(z, sigma / 2, groups, form=form))


def test_the_floor_is_tight_for_white_gaussians_and_never_beaten() -> None:
    """White: the floor is the error of the conditional mean. Coloured: it lies below."""
    for spread, tight in (((0.3,) * D, True), ((0.01, 0.1, 0.5, 2.0), False)):
        x = gaussian(*spread)
        best = sum(1 / (1 / v + 1 / SIGMA**2) for v in spread) / D
        floor = floor_cem(gaussian_entropy(x, smoothing=0.0), information_bound(x, SIGMA, ONE), D)
        assert floor == pytest.approx(best, rel=0.02) if tight else 0.3 * best < floor < best


def test_without_features_the_floor_is_the_priors() -> None:
    assert floor_cem(noise_entropy(7, 0.1), 0.0, 7) == pytest.approx(0.01)
    x = gaussian(0.3, 0.3)
    assert floor_cem(gaussian_entropy(x, smoothing=0.1), 0.0, 2) == pytest.approx(0.31, rel=0.02)


def test_clusters_stay_within_classes() -> None:
    labels = torch.arange(60) % 3
    z = torch.randn(60, 2, 2, 2, generator=DRAWS)
    groups = clusters(z, labels=labels, count=4)
    assert len(groups.unique()) == 12
    assert all(len(labels[groups == k].unique()) == 1 for k in groups.unique())
    assert torch.equal(groups, clusters(z, labels=labels, count=4))
    assert len(clusters(torch.ones(9, 2), count=4).unique()) == 1


def test_bad_input() -> None:
    z = torch.rand(4, 2)
    with pytest.raises(InputError, match="sigma = 0"):
        information_bound(z, 0.0, torch.zeros(4))
    with pytest.raises(InputError, match="isotropic or diagonal"):
        information_bound(z, 1.0, torch.zeros(4), form="full")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one for each sample"):
        information_bound(z, 1.0, torch.zeros(3))
    with pytest.raises(InputError, match="smoothing above 0"):
        noise_entropy(3, 0.0)
