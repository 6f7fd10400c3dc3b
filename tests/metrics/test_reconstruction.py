import math

import pytest
import torch

from splitveil.metrics import METRICS

DRAWS = torch.Generator().manual_seed(0)
X = torch.rand(8, 3, 16, 16, generator=DRAWS)


def test_psnr_of_noise_of_known_strength() -> None:
    """Peak 1 on [0, 1] images: noise of sigma 0.1 is 20 dB, not 68 as with a peak of 255."""
    x = torch.full((4, 3, 64, 64), 0.5)
    noisy = x + 0.1 * torch.randn(x.shape, generator=DRAWS)
    assert METRICS.build("psnr")(x, noisy).mean().item() == pytest.approx(20, abs=0.1)


def test_mse_is_per_element_not_per_pixel() -> None:
    assert METRICS.build("mse")(X, X + 0.5).tolist() == pytest.approx([0.25] * 8)


def test_psnr_is_per_image_then_averaged() -> None:
    """The PSNR of the mean MSE is another, lower number."""
    x = torch.zeros(2, 1, 16, 16)
    x_hat = torch.stack([torch.full((1, 16, 16), 0.1), torch.full((1, 16, 16), 0.01)])
    values = METRICS.build("psnr")(x, x_hat)
    assert values.tolist() == pytest.approx([20, 40], abs=1e-3)
    assert -10 * math.log10(METRICS.build("mse")(x, x_hat).mean().item()) < values.mean().item() - 5


@pytest.mark.parametrize("name", ["mse", "psnr", "ssim"])
def test_values_do_not_depend_on_batch_size_or_order(name: str) -> None:
    metric, guess = METRICS.build(name), (X + 0.1 * torch.randn(X.shape, generator=DRAWS)).clamp(0, 1)
    whole = metric(X, guess)
    parts = torch.cat([metric(a, b) for a, b in zip(X.split(3), guess.split(3), strict=True)])
    assert torch.allclose(whole, parts, atol=1e-6)
    assert torch.allclose(whole.flip(0), metric(X.flip(0), guess.flip(0)), atol=1e-6)


def test_equal_images() -> None:
    assert METRICS.build("psnr")(X, X).tolist() == [100.0] * 8
    assert METRICS.build("mse")(X, X).tolist() == [0.0] * 8
    assert METRICS.build("ssim")(X, X).tolist() == pytest.approx([1.0] * 8, abs=1e-5)


def test_the_worst_tail_is_what_leaks_most() -> None:
    values = torch.arange(100.0)
    assert METRICS.build("psnr").worst(values) == pytest.approx(97)
    assert METRICS.build("ssim").worst(values) == pytest.approx(97)
    assert METRICS.build("mse").worst(values) == pytest.approx(2)
    assert METRICS.build("psnr").worst(torch.tensor([1.0, 7.0])) == 7
