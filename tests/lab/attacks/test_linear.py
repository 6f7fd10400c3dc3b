import pytest
import torch
from torch import nn

from splitveil.lab.attacks.linear import LinearInverse, fit_linear

from .conftest import images


@pytest.mark.parametrize(
    ("features", "image", "window"),
    [((8, 24, 24), (1, 28, 28), 5), ((16, 8, 8), (1, 28, 28), 3), ((4, 32, 32), (3, 16, 16), 1),
     ((17, 6), (3, 16, 16), 3), ((9,), (3, 16, 16), 0), ((16, 5, 7), (3, 30, 22), 0)],
)  # fmt: skip
def test_any_features_give_images_of_the_right_shape(
    features: tuple[int, ...], image: tuple[int, int, int], window: int
) -> None:
    assert LinearInverse(features, image, window, torch.zeros(image))(torch.randn(2, *features)).shape == (2, *image)


def inverted(edge: nn.Module, window: int | None) -> tuple[LinearInverse, float]:
    x = images(300, 0).float() / 255
    mean = x.mean(0)
    with torch.no_grad():
        z = edge(x)
    found = fit_linear(lambda i: (z[i], x[i]), 256, (z[256:], x[256:]), mean, seed=0)
    assert found is not None
    if window is not None:
        assert found.window == window
    error = (found(z[256:]) - x[256:]).square().mean()
    return found, float(error / (x[256:] - mean).square().mean())


def test_an_injective_convolution_is_undone_exactly() -> None:
    torch.manual_seed(0)
    assert inverted(nn.Conv2d(3, 16, 3, 1, 1), None)[1] < 1e-4


def test_a_permutation_of_pixels_needs_the_dense_map() -> None:
    order = torch.randperm(768, generator=torch.Generator().manual_seed(0))
    shuffle = nn.Sequential(nn.Flatten(), Permuted(order), nn.Unflatten(1, (3, 16, 16)))
    found, error = inverted(shuffle, 0)
    assert error < 0.2
    assert found.weight.shape == (768, 768)


def test_noise_tells_nothing_and_the_penalty_shows_it() -> None:
    class Noise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.randn(len(x), 8, 4, 4, generator=torch.Generator().manual_seed(3))

    _, error = inverted(Noise(), None)
    assert error == pytest.approx(1, abs=0.15)


class Permuted(nn.Module):
    def __init__(self, order: torch.Tensor) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, self.order]
