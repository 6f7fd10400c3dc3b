"""The dense inverse has no limit of features and does not care in which order they come."""

import pytest
import torch
from torch import nn

from splitveil.lab.attacks.dual import Dual
from splitveil.lab.attacks.linear import Linear
from splitveil.lab.attacks.parts.dual import DenseInverse
from splitveil.lab.metrics import METRICS

from .conftest import KNOWN, Make, images


class Shuffled(nn.Module):
    """A convolution whose features are sent in another order, each times a factor of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, draws = nn.Conv2d(3, width, 3, 2, 1), torch.Generator().manual_seed(1)
        self.order = torch.randperm(width * 64, generator=draws)
        self.factor = 10 ** (4 * torch.rand(width * 64, generator=draws) - 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = self.conv(x)
        return (z.flatten(1)[:, self.order] * self.factor).reshape(z.shape)


def test_shuffled_features_beyond_the_limit_of_linear(make_view: Make) -> None:
    view, truth = make_view(Shuffled(96))
    assert view.z[0].numel() > 5000
    metric = METRICS.build("psnr")
    dual, local, mean = (
        metric(truth, guess).mean().item()
        for guess in (Dual()(view).x_hat, Linear()(view).x_hat, view.aux.images().mean(0).expand_as(truth))
    )
    assert dual > local + 5 > mean


@pytest.mark.parametrize("count", [40, 200])
def test_both_forms_are_one_regression(count: int) -> None:
    draws = torch.Generator().manual_seed(0)
    x = images(KNOWN, 1).float() / 255
    z = x.flatten(1) @ torch.randn(768, 100, generator=draws)
    found = DenseInverse(lambda index: (z[index], x[index]), count, (z[200:], x[200:]))
    flat = ((z - found.shift) * found.scale).double()
    own, target = flat[:count], (x[:count] - x[:count].mean(0)).flatten(1).double()
    ridge = found.penalty * own.square().sum() / min(count, 100) * torch.eye(100)
    weight = torch.linalg.solve(own.T @ own + ridge, own.T @ target)
    expected = x[:count].mean(0) + (flat[200:] @ weight).reshape(-1, 3, 16, 16)
    assert torch.allclose(found(z[200:]).double(), expected, atol=2e-3)
