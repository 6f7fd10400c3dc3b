import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.metrics.jacobian import rank, spectrum

X = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Linear(nn.Module):
    """(N, 3, 8, 8) -> (N, 2, outputs / 2) by a matrix of known singular values."""

    def __init__(self, values: Tensor, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        left = torch.linalg.qr(torch.randn(outputs, len(values), dtype=torch.float64)).Q
        right = torch.linalg.qr(torch.randn(192, len(values), dtype=torch.float64)).Q
        self.matrix = nn.Parameter((left * values @ right.T).float())

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.matrix.T).reshape(len(x), 2, -1)


class Attention(nn.Module):
    """Four tokens of 48 numbers that attend to one another."""

    def forward(self, x: Tensor) -> Tensor:
        t = x.reshape(len(x), 1, 4, 48)
        out: Tensor = F.scaled_dot_product_attention(t, t, t)
        return out


def net() -> nn.Module:
    torch.manual_seed(1)
    layers = [
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 6, 3, 1, 1), nn.GELU(),
        nn.MaxPool2d(2),
    ]  # fmt: skip
    return nn.Sequential(*layers).eval()


def jacobians(edge: nn.Module, x: Tensor) -> Tensor:
    """By torch's own function, one image at a time. (N, outputs, inputs)."""
    return torch.stack(
        [torch.autograd.functional.jacobian(edge, image[None]).reshape(-1, image.numel()) for image in x]
    )


@pytest.mark.parametrize("outputs", [40, 192, 300])
def test_a_linear_map_has_its_own_singular_values(outputs: int) -> None:
    known = torch.linspace(2, 0.1, 30, dtype=torch.float64)
    edge = Linear(known, outputs)
    exact = spectrum(edge, X)
    assert exact.shape == (3, min(outputs, 192))
    assert torch.allclose(exact[:, :30], known.expand(3, -1), atol=1e-5)
    assert exact[:, 30:].max() < 1e-5
    assert torch.allclose(spectrum(edge, X, probes=30), known.expand(3, -1), atol=1e-5)


@pytest.mark.parametrize("edge", [net(), Attention()], ids=["convolutions", "attention"])
def test_a_net_has_the_singular_values_of_its_jacobian(edge: nn.Module) -> None:
    assert torch.allclose(spectrum(edge, X), torch.linalg.svdvals(jacobians(edge, X).double()), atol=1e-5)


def test_leading_values_are_near_the_exact_ones_and_not_above() -> None:
    values = 0.9 ** torch.arange(192, dtype=torch.float64)
    for edge in (Linear(values, 192), nn.Sequential(net(), nn.Upsample(scale_factor=4))):
        exact, leading = spectrum(edge, X)[:, :12], spectrum(edge, X, probes=12, seed=3)
        assert torch.allclose(leading, exact, rtol=2e-3, atol=1e-5)
        assert bool((leading <= exact * (1 + 1e-5) + 1e-6).all())


def test_more_probes_than_values_are_all_values() -> None:
    assert torch.equal(spectrum(net(), X, probes=500), spectrum(net(), X))
    assert spectrum(net(), X, probes=20).shape == (3, 20)


def test_rank_counts_equal_singular_values_and_ignores_scale() -> None:
    edge = Linear(torch.full((20,), 0.7, dtype=torch.float64), 64)
    assert torch.allclose(rank(edge, X), torch.full((3,), 20.0, dtype=torch.float64), atol=0.01)
    assert torch.allclose(rank(lambda x: 10 * net()(x), X), rank(net(), X), rtol=1e-5)
    assert rank(lambda x: 0 * x, X).tolist() == [0, 0, 0]


def test_neither_batch_nor_order_nor_global_seed_moves_a_value() -> None:
    edge = net()
    whole = spectrum(edge, X, probes=8)
    torch.rand(5)
    assert torch.allclose(torch.cat([spectrum(edge, x, probes=8) for x in X.split(1)]), whole, rtol=1e-5)
    assert torch.allclose(spectrum(edge, X.flip(0), probes=8), whole.flip(0), rtol=1e-5)


def test_parameters_and_images_keep_no_gradient() -> None:
    edge, x = net(), X.clone().requires_grad_(True)
    spectrum(edge, x, probes=4)
    assert x.grad is None
    assert all(p.grad is None for p in edge.parameters())


def test_bad_input_names_the_remedy() -> None:
    with pytest.raises(InputError, match="give it without no_grad"):
        spectrum(lambda x: x.detach(), X)
    with pytest.raises(InputError, match="give probes=32"):
        spectrum(nn.Identity(), torch.rand(1, 3, 64, 64))
    with pytest.raises(InputError, match="give the number"):
        spectrum(net(), X, probes=0)
    with pytest.raises(InputError, match="at least one"):
        spectrum(net(), X[:0])
