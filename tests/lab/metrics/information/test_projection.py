"""Whitened principal components."""

import pytest
import torch
from sklearn.decomposition import PCA

from splitveil.core.errors import InputError
from splitveil.lab.metrics.information.base import split_samples
from splitveil.lab.metrics.information.ksg import ksg_estimate
from splitveil.lab.metrics.information.projection import principal, projected
from tests.lab.metrics.information.gaussians import gaussians


def pictures(n: int = 300) -> torch.Tensor:
    draws = torch.Generator().manual_seed(0)
    basis = torch.randn(12, 3 * 8 * 8, generator=draws)
    weights = torch.randn(n, 12, generator=draws) * torch.logspace(1, -1, 12)
    return (weights @ basis + 2).reshape(n, 3, 8, 8)


def test_the_components_are_scikit_learns() -> None:
    x = pictures()
    found = principal(x, 5)(x)
    expected = torch.from_numpy(PCA(5, whiten=True, svd_solver="full").fit_transform(x.flatten(1).double().numpy()))
    signs = (found * expected).sum(0).sign()
    assert torch.allclose(found.double() * signs, expected, atol=0.02)
    assert torch.allclose(found.T @ found / len(x), torch.eye(5), atol=1e-3)


def test_no_component_is_made_of_noise() -> None:
    assert principal(pictures(), 32)(pictures()).shape == (300, 12)
    assert principal(pictures(6), 32)(pictures()).shape == (300, 5)


def test_it_is_fitted_on_the_training_half_only() -> None:
    x = pictures()
    other = x.clone()
    other[split_samples(len(x), 0).held] *= 3
    train = split_samples(len(x), 0).train
    assert torch.allclose(projected(x, 4)[train], projected(other, 4)[train])
    assert not torch.allclose(projected(x, 4, seed=1)[train], projected(x, 4)[train])


def test_scale_does_not_matter_and_the_global_generator_is_left_alone() -> None:
    x = pictures()
    torch.manual_seed(5)
    first, drawn = projected(x, 4), torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.allclose(first, projected(10 * x, 4), atol=1e-3)


def test_information_in_the_leading_components_survives() -> None:
    x, z = gaussians(2.0, 2, 1000)
    draws = torch.Generator().manual_seed(0)
    wide = x @ torch.randn(2, 500, generator=draws) + 0.01 * torch.randn(1000, 500, generator=draws)
    assert ksg_estimate(projected(wide, 2), z).nats == pytest.approx(2.0, abs=0.25)


def test_input_that_cannot_be_used() -> None:
    with pytest.raises(InputError, match="dims >= 1"):
        projected(pictures(), 0)
    with pytest.raises(InputError, match="got a constant"):
        projected(torch.ones(100, 3))
