"""KSG against closed forms, another implementation, and where it is stated to fail."""

import pytest
import torch
from sklearn.feature_selection import mutual_info_regression

from splitveil.core.errors import InputError
from splitveil.lab.metrics.information.base import Validity
from splitveil.lab.metrics.information.ksg import RANGE, TRUSTED_DIMS, ksg_estimate
from tests.lab.metrics.information.gaussians import gaussians, uncorrelated


@pytest.mark.parametrize("nats", [0.5, 2.0, None])
@pytest.mark.parametrize("stated", RANGE, ids=lambda v: f"{v.dims}d")
def test_the_stated_range_holds(stated: Validity, nats: float | None) -> None:
    nats = nats or stated.nats
    assert ksg_estimate(*gaussians(nats, stated.dims, stated.samples)).nats == pytest.approx(nats, abs=stated.error)


@pytest.mark.parametrize("pair", [gaussians(1.0, 1, 600), uncorrelated(1.0, 600)], ids=["gaussian", "uncorrelated"])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_it_is_what_scikit_learn_computes(pair: tuple[torch.Tensor, torch.Tensor], k: int) -> None:
    x, z = pair
    expected = mutual_info_regression(x.double().numpy(), z[:, 0].double().numpy(), n_neighbors=k, random_state=0)
    assert ksg_estimate(x, z, k=k).nats == pytest.approx(expected[0], abs=1e-3)


@pytest.mark.parametrize(("dims", "nats", "most"), [(8, 4.0, 3.0), (32, 2.0, 0.6), (32, 8.0, 2.0)])
def test_in_many_dimensions_it_falls_short_and_says_so(dims: int, nats: float, most: float) -> None:
    found = ksg_estimate(*gaussians(nats, dims, 2000))
    assert found.nats < most
    assert f"trusted to {TRUSTED_DIMS}" in found.note


def test_a_thing_and_itself_reach_the_cap_exactly() -> None:
    x, _ = gaussians(1.0, 4, 500)
    found = ksg_estimate(x, x)
    psi = torch.digamma(torch.tensor([500.0, 3.0], dtype=torch.float64))
    assert found.cap == pytest.approx((psi[0] - psi[1]).item() - 1 / 3)
    assert found.nats == pytest.approx(found.cap, abs=1e-9)
    assert found.saturated


def test_scale_place_order_and_channels_do_not_matter() -> None:
    x, z = gaussians(2.0, 4, 1000)
    first = ksg_estimate(x, z).nats
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(1))
    for other in (
        ksg_estimate(x[order], z[order]), ksg_estimate(x, z[:, [2, 0, 3, 1]]), ksg_estimate(x, 8 * z),
        ksg_estimate(z, x), ksg_estimate(x.reshape(-1, 2, 2), z),
    ):  # fmt: skip
        assert other.nats == pytest.approx(first, abs=1e-12)
    # Other roundings: one neighbour may change places.
    assert ksg_estimate(x, z * torch.tensor([10.0, 0.3, 7.0, 1.0]) + 3).nats == pytest.approx(first, abs=1e-3)


def test_random_partners_share_nothing() -> None:
    x, z = gaussians(4.0, 2, 2000)
    found = ksg_estimate(x, z[torch.randperm(2000, generator=torch.Generator().manual_seed(1))])
    assert abs(found.nats) < 0.06


def test_ties_are_broken() -> None:
    labels = torch.arange(1000) % 4
    x = torch.nn.functional.one_hot(labels, 4).float()
    found = ksg_estimate(x, x[torch.randperm(1000, generator=torch.Generator().manual_seed(1))])
    assert abs(found.nats) < 0.2


def test_neighbours_out_of_range() -> None:
    x, z = gaussians(1.0, 2, 100)
    with pytest.raises(InputError, match="k from 1 to 99, got 100"):
        ksg_estimate(x, z, k=100)
