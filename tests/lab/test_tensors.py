import pytest
import torch
from torch import Tensor

from splitveil.lab.tensors import ssim, total_variation
from splitveil.lab.vision import torchvision


def pair(size: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(size)
    x = torch.rand(6, channels, size, size, generator=draws)
    return x, (x + 0.2 * torch.randn(x.shape, generator=draws)).clamp(0, 1)


@pytest.mark.parametrize(("size", "channels"), [(16, 3), (32, 1), (23, 2), (11, 3)])
def test_ssim_equals_scikit_image(size: int, channels: int) -> None:
    from skimage.metrics import structural_similarity

    x, y = pair(size, channels)
    reference = [
        structural_similarity(
            a.numpy(), b.numpy(), channel_axis=0, gaussian_weights=True, sigma=1.5, data_range=1.0,
            use_sample_covariance=False,
        )
        for a, b in zip(x.double(), y.double(), strict=True)
    ]  # fmt: skip
    assert ssim(x.double(), y.double()).tolist() == pytest.approx(reference, abs=1e-9)


def test_ssim_equals_torchmetrics_which_mirrors_the_border() -> None:
    torchvision()
    from torchmetrics.functional.image import structural_similarity_index_measure as reference

    x, y = pair(24)
    found = reference(x, y, data_range=1.0, reduction="none")
    assert isinstance(found, Tensor)
    mirrored = [torch.nn.functional.pad(t, [5] * 4, mode="reflect") for t in (x, y)]
    assert torch.allclose(ssim(*mirrored), found, atol=1e-5)


@pytest.mark.parametrize("size", [5, 8, 10])
def test_ssim_of_images_smaller_than_the_window(size: int) -> None:
    x, y = pair(size)
    assert torch.allclose(ssim(x, x), torch.ones(6), atol=1e-5)
    assert (ssim(x, y) < 0.99).all()


def test_ssim_does_not_depend_on_the_rest_of_the_batch() -> None:
    x, y = pair(16)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert torch.allclose(ssim(x, y)[order], ssim(x[order], y[order]), atol=1e-6)
    assert torch.allclose(ssim(x, y)[2:3], ssim(x[2:3], y[2:3]), atol=1e-6)


def test_total_variation_of_known_images() -> None:
    flat, steps = torch.ones(1, 3, 4, 4), torch.arange(4.0).expand(1, 3, 4, 4)
    assert total_variation(flat).item() == 0
    assert total_variation(steps).item() == pytest.approx(1)
    assert total_variation(torch.rand(2, 1, 1, 5)).shape == (2,)


def test_ssim_is_exact_within_autocast() -> None:
    """Under bf16 its variances would be noise, and a loss made of them not finite."""
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    y = (x + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        inside = ssim(x, y)
    assert torch.equal(inside, ssim(x, y))
    assert torch.autograd.grad(inside.sum(), y)[0].isfinite().all()
