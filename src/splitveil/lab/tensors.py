"""Tensor functions that several layers share: SSIM, PSNR, total variation, classes of logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from splitveil.core.errors import AnswerError

PSNR_CAP = 100.0
SSIM_WINDOW, SSIM_SIGMA, SSIM_K1, SSIM_K2 = 11, 1.5, 0.01, 0.03


def classes_of(logits: Tensor, what: str = "the model") -> Tensor:
    """The class that each sample's logits name. (N, K) -> (N,).

    Raises:
        AnswerError: NaN or infinite logits, whose largest is a class by accident only.
    """
    if strange := int((~logits.isfinite()).any(1).sum()):
        raise AnswerError(
            f"expected finite answers of {what}, got NaN or infinity for {strange} of {len(logits)} images; check its "
            "weights, or train with a lower learning rate."
        )
    return logits.argmax(1)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of images in [0, 1], one value an image.

    Wang et al. 2004: an 11 x 11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, averaged over the positions where
    the whole window fits and over channels. Images smaller than 11 pixels get the largest odd window that fits (our
    reading).

    Args:
        x: (N, C, H, W).
        y: (N, C, H, W).

    Returns:
        (N,), 1 for equal images.
    """
    # Variances are small differences of large numbers: never in bf16, whatever training asks for.
    with torch.autocast(x.device.type, enabled=False):
        exact = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
        return _ssim(x.to(exact), y.to(exact))


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    channels, height, width = x.shape[1:]
    fits = min(SSIM_WINDOW, height, width)
    size = fits if fits % 2 else fits - 1
    at = torch.arange(size, dtype=x.dtype, device=x.device) - size // 2
    row = torch.exp(-(at**2) / (2 * SSIM_SIGMA**2))
    row = (row / row.sum()).expand(channels, 1, 1, size)

    def blur(t: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(t, row, groups=channels), row.transpose(2, 3), groups=channels)

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    value = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return value.mean((1, 2, 3))


def total_variation(x: Tensor) -> Tensor:
    """Anisotropic total variation per pixel, one value an image. x: (N, C, H, W) -> (N,)."""
    vertical = (x[:, :, 1:] - x[:, :, :-1]).abs().mean((1, 2, 3)) if x.shape[2] > 1 else x.new_zeros(len(x))
    horizontal = (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3)) if x.shape[3] > 1 else x.new_zeros(len(x))
    return vertical + horizontal


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB for a peak of 1, one value an image, capped. (N, C, H, W) twice -> (N,)."""
    return -10 * (x - y).square().mean((1, 2, 3)).clamp_min(10 ** (-PSNR_CAP / 10)).log10()
