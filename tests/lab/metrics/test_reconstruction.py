import math

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.metrics import ALWAYS, METRICS
from splitveil.lab.metrics.reconstruction import MS_SSIM_WEIGHTS, scales_that_fit
from splitveil.lab.tensors import ssim
from splitveil.lab.vision import torchvision

PIXELS = ["mse", "psnr", "ssim", "ms_ssim", "registered_psnr", "gms"]

DRAWS = torch.Generator().manual_seed(0)
X = torch.rand(8, 3, 16, 16, generator=DRAWS)


def noisy(x: Tensor, sigma: float = 0.1) -> Tensor:
    return (x + sigma * torch.randn(x.shape, generator=DRAWS)).clamp(0, 1)


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


@pytest.mark.parametrize("name", PIXELS)
def test_values_do_not_depend_on_batch_size_or_order(name: str) -> None:
    metric, guess = METRICS.build(name), noisy(X)
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


def test_what_stands_in_every_row_is_known() -> None:
    assert set(ALWAYS) < set(METRICS.names())


@pytest.mark.parametrize("name", ["ms_ssim", "gms"])
@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_similarity_is_one_for_equal_images_and_falls_with_noise(name: str, size: int) -> None:
    metric, x = METRICS.build(name), torch.rand(4, 1, size, size, generator=DRAWS)
    assert metric(x, x).tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    little, much = metric(x, noisy(x, 0.05)), metric(x, noisy(x, 0.5))
    assert (much < little).all()
    assert (little < 1).all()
    assert (much >= 0).all()


@pytest.mark.parametrize(("size", "scales"), [(8, 1), (16, 1), (22, 2), (32, 2), (44, 3), (98, 3), (99, 4), (176, 5)])
def test_as_many_scales_as_fit(size: int, scales: int) -> None:
    assert scales_that_fit(size, size + 1) == scales_that_fit(size + 1, size) == scales


def test_ms_ssim_of_a_large_image_is_that_of_torchmetrics() -> None:
    torchvision()
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as reference

    x = torch.rand(2, 1, 176, 180, generator=DRAWS)
    found = METRICS.build("ms_ssim")(x, noisy_x := noisy(x))
    for i in range(2):
        single = reference(noisy_x[i : i + 1], x[i : i + 1], data_range=1.0)
        assert found[i].item() == pytest.approx(float(single), abs=1e-5)


def test_ms_ssim_by_hand_at_two_scales() -> None:
    """Contrast and structure at full size, all of SSIM at half, weights divided by their sum."""
    x = torch.rand(3, 1, 32, 32, generator=DRAWS).double()
    y = (x + 0.1 * torch.randn(x.shape, generator=DRAWS).double()).clamp(0, 1)
    halves = [torch.nn.functional.avg_pool2d(t, 2) for t in (x, y)]
    coarse = ssim(*(torch.nn.functional.pad(t, [5] * 4, mode="reflect") for t in halves))
    fine = _contrast_structure(x, y)
    a, b = (w / sum(MS_SSIM_WEIGHTS[:2]) for w in MS_SSIM_WEIGHTS[:2])
    expected = fine**a * coarse**b
    assert METRICS.build("ms_ssim")(x, y).tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def _contrast_structure(x: Tensor, y: Tensor) -> Tensor:
    at = torch.arange(11).double() - 5
    row = torch.exp(-(at**2) / (2 * 1.5**2))
    window = torch.outer(row, row)[None, None] / row.sum() ** 2

    def blur(t: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(t, window)

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    return ((2 * cov + 0.03**2) / (vx + vy + 0.03**2)).mean((1, 2, 3))


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, -2), (-4, 4)])
def test_a_shifted_copy_is_found(down: int, right: int) -> None:
    large = torch.rand(2, 3, 40, 40, generator=DRAWS)
    x, moved = large[:, :, 4:36, 4:36], large[:, :, 4 + down : 36 + down, 4 + right : 36 + right]
    assert METRICS.build("registered_psnr")(x, moved).tolist() == [100.0] * 2
    if down:
        assert (METRICS.build("registered_psnr:shift=1")(x, moved) < 20).all()
        assert (METRICS.build("psnr")(x, moved) < 20).all()


def test_registration_never_lowers_psnr_and_zero_shift_is_psnr() -> None:
    guess = noisy(X, 0.3)
    plain = METRICS.build("psnr")(X, guess)
    assert (METRICS.build("registered_psnr")(X, guess) >= plain).all()
    assert torch.equal(METRICS.build("registered_psnr:shift=0")(X, guess), plain)
    assert METRICS.build("registered_psnr:shift=2").name == "registered_psnr:shift=2"
    with pytest.raises(InputError, match="shift=-1; use"):
        METRICS.build("registered_psnr:shift=-1")


def test_gms_equals_a_sum_over_windows() -> None:
    guess = noisy(X)
    across = np.array([[1, 0, -1]] * 3) / 3

    def gradient(image: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        windows = sliding_window_view(np.tensordot([0.299, 0.587, 0.114], image.double().numpy(), 1), (3, 3))
        found: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
        found = np.hypot((windows * across).sum((2, 3)), (windows * across.T).sum((2, 3)))
        return found

    c = 170 / 255**2
    expected = []
    for a, b in zip(map(gradient, X), map(gradient, guess), strict=True):
        expected.append(float(((2 * a * b + c) / (a**2 + b**2 + c)).mean()))
    assert METRICS.build("gms")(X, guess).tolist() == pytest.approx(expected, abs=1e-5)


def test_gradients_do_not_see_brightness() -> None:
    x = 0.5 * X
    assert METRICS.build("gms")(x, x + 0.3).tolist() == pytest.approx([1.0] * 8, abs=1e-5)
    assert (METRICS.build("ssim")(x, x + 0.3) < 0.9).all()
