import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.metrics.bounds.fisher import fisher_trace, jacobian_rows

DRAWS = torch.Generator().manual_seed(0)
X = torch.rand(6, 2, 4, 4, generator=DRAWS)
D = 32


def linear(features: int) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    a = torch.randn(features, D, generator=DRAWS)
    return lambda x: x.flatten(1) @ a.T, a.double()


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)).eval()


@pytest.mark.parametrize("features", [5, 50])
@pytest.mark.parametrize("sigma", [0.3, torch.linspace(0.1, 1, 5)])
def test_linear_maps_have_the_analytic_trace(features: int, sigma: float | Tensor) -> None:
    """Fewer features than pixels take the reverse mode, more the forward mode."""
    f, a = linear(features)
    sigma = sigma if isinstance(sigma, float) else sigma.repeat(features // 5)
    wanted = (a / torch.as_tensor(sigma).double().reshape(-1, 1).expand(features, 1)).square().sum().item()
    found = fisher_trace(f, X, sigma)
    assert found.values.tolist() == pytest.approx([wanted] * 6, rel=1e-5)
    assert found.dfil.tolist() == pytest.approx([wanted / D] * 6, rel=1e-5)
    assert found.errors.tolist() == [0] * 6


@pytest.mark.parametrize("f", [net(), linear(20)[0]], ids=["net", "linear"])
def test_probes_agree_with_the_exact_value_within_their_error(f: Callable[[Tensor], Tensor]) -> None:
    exact, probed = fisher_trace(f, X, 0.5), fisher_trace(f, X, 0.5, probes=400, seed=1)
    deviations = (probed.values - exact.values) / probed.errors
    assert deviations.abs().max() < 4
    assert 0.3 < deviations.square().mean().sqrt() < 2
    assert (probed.errors < 0.1 * exact.values).all()


def test_a_net_equals_autograd() -> None:
    f = net()
    found = fisher_trace(f, X, 0.5)
    for x, value in zip(X, found.values.tolist(), strict=True):
        jacobian = torch.autograd.functional.jacobian(f, x[None])
        assert value == pytest.approx(jacobian.square().sum().item() / 0.25, rel=1e-4)


def test_attention_without_a_forward_mode_gets_the_same_number() -> None:
    def attend(x: Tensor) -> Tensor:
        tokens = x.reshape(-1, 1, 8, 4)
        return torch.cat([F.scaled_dot_product_attention(tokens, tokens, tokens)] * 2, 1)

    jacobian = torch.autograd.functional.jacobian(attend, X[:1])
    assert fisher_trace(attend, X[:1], 1.0).mean == pytest.approx(jacobian.square().sum().item(), rel=1e-4)


@pytest.mark.parametrize("probes", [None, 8])
def test_scaling_features_and_noise_changes_nothing(probes: int | None) -> None:
    f = net()
    one = fisher_trace(f, X, 0.2, probes=probes)
    ten = fisher_trace(lambda x: 10 * f(x), X, 2.0, probes=probes)
    assert torch.allclose(one.values, ten.values, rtol=1e-5)


def test_batch_size_and_order_change_nothing() -> None:
    f = net()
    whole = fisher_trace(f, X, 0.2).values
    parts = torch.cat([fisher_trace(f, part, 0.2).values for part in X.split(4)])
    assert torch.allclose(whole, parts, rtol=1e-5)
    assert torch.allclose(whole.flip(0), fisher_trace(f, X.flip(0), 0.2).values, rtol=1e-5)


def test_the_standard_error_covers_the_spread_over_images() -> None:
    found = fisher_trace(net(), X, 0.2)
    assert found.standard_error == pytest.approx(found.values.std().item() / math.sqrt(6))
    assert fisher_trace(net(), X[:1], 0.2, probes=8).standard_error > 0


def test_rows_are_the_jacobian() -> None:
    f, a = linear(5)
    rows = torch.cat([r for _, r in jacobian_rows(f, X[:2], 0.5)])
    assert torch.allclose(rows, (2 * a).repeat(2, 1), rtol=1e-5)


def test_a_constant_edge_tells_nothing() -> None:
    assert fisher_trace(lambda x: torch.ones(len(x), 3), X, 1.0).values.tolist() == [0] * 6


def test_noise_of_another_kind_is_refused() -> None:
    f, _ = linear(5)
    with pytest.raises(InputError, match="got sigma = 0"):
        fisher_trace(f, X, 0.0)
    with pytest.raises(InputError, match="one size for all inputs, got a function"):
        fisher_trace(f, X, nn.Linear(5, 5))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="differs between samples"):
        fisher_trace(f, X, torch.ones(6, 5))
    with pytest.raises(InputError, match="finite sigma"):
        fisher_trace(f, X, float("nan"))
    with pytest.raises(InputError, match="2 probes or more"):
        fisher_trace(f, X, 1.0, probes=1)
