"""How near a guess is to the input, pixel by pixel and structure by structure."""

from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab import tensors
from splitveil.lab.metrics.base import Metric
from splitveil.lab.vision import torchvision

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the five scales, finest first (Wang et al. 2003, section 3.2)."""
SHIFT = 4
GMS_CONSTANT = 170 / 255**2
"""Xue et al. 2014, section III-A: 170 for pixels up to 255."""
GMS_HALVED_FROM = 256
"""Shorter side, in pixels, from which gradients are compared at half the size."""
LUMA = (0.299, 0.587, 0.114)


def mse() -> Metric:
    """Mean squared error per element, pixels in [0, 1] (papers that sum over channels print C times this)."""
    return Metric.standing("mse", _mse)


def psnr() -> Metric:
    """Peak signal-to-noise ratio of each image for a peak of 1, capped at 100 dB."""
    return Metric.standing("psnr", tensors.psnr)


def ssim() -> Metric:
    """Structural similarity (Wang et al. 2004): 11 x 11 Gaussian window, sigma 1.5; 1 for equal images."""
    return Metric.standing("ssim", tensors.ssim)


def ms_ssim() -> Metric:
    """Structural similarity at several scales (Wang et al. 2003), as many as fit the image. More leaks more.

    1 for equal images. A scale of the five fits where the image, halved for each scale before it, still holds the
    11 x 11 window: five from 176 pixels, three from 44, two at 32. The weights of those that fit are divided by
    their sum (our reading; the paper has five always, and values for other sizes are not comparable with it). One
    scale is SSIM. Negative terms count as 0; the coarsest of several scales sees the border mirrored, as
    torchmetrics, which computes them, has it.
    """
    return Metric("ms_ssim", "1", higher_leaks=True, fn=_ms_ssim)


def registered_psnr(*, shift: int = SHIFT) -> Metric:
    """PSNR in decibels after the best small shift of the guess. More leaks more.

    At whole shifts, on the pixels where both overlap; capped at 100 dB.
    A guess that is right but moved by a pixel or two, as decoders with strides give, shows a person as much as an
    unmoved one. Shifts beyond a quarter of the shorter side are not tried: in a small overlap anything fits.

    Args:
        shift: largest shift in pixels along either axis.

    Raises:
        InputError: a negative shift.
    """
    if not isinstance(shift, int) or isinstance(shift, bool) or shift < 0:
        raise InputError(f"expected a whole number of pixels from 0 up, got shift={shift}; use registered_psnr:shift=4")
    name = "registered_psnr" + (f":shift={shift}" if shift != SHIFT else "")
    return Metric(name, "dB", higher_leaks=True, fn=partial(_registered_psnr, shift=shift))


def gms() -> Metric:
    """Similarity of the gradients of brightness (Xue et al. 2014): edges and texture. More leaks more.

    GMS, mean over positions; 1 for equal images.
    Section III-A: Prewitt gradients of the luminance, ``(2 a b + c) / (a^2 + b^2 + c)`` with c = 170 on [0, 255],
    averaged as in the paper's GMSM. Edges are what a person recognises a shape by. Our readings: images below 256
    pixels are compared at full size (the paper halves all, being photographs), and only positions where the whole
    filter fits count.
    """
    return Metric("gms", "1", higher_leaks=True, fn=_gms)


def scales_that_fit(height: int, width: int) -> int:
    """How many of the five scales of MS-SSIM fit an image, at least one."""
    side, count = min(height, width) // 2, 1
    while count < len(MS_SSIM_WEIGHTS) and side >= tensors.SSIM_WINDOW:
        side, count = side // 2, count + 1
    # torchmetrics asks for more than ten pixels times the squared number of halvings, which is more at four scales.
    while count > 1 and min(height, width) // (count - 1) ** 2 < tensors.SSIM_WINDOW:
        count -= 1
    return count


def _mse(x: Tensor, x_hat: Tensor) -> Tensor:
    return (x - x_hat).square().mean((1, 2, 3))


def _ms_ssim(x: Tensor, x_hat: Tensor) -> Tensor:
    count = scales_that_fit(*x.shape[2:])
    if count == 1:
        return tensors.ssim(x, x_hat).clamp_min(0)
    torchvision()  # torchmetrics imports it
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    total = sum(MS_SSIM_WEIGHTS[:count])
    return multiscale_structural_similarity_index_measure(
        x_hat, x, data_range=1.0, reduction="none", normalize="relu",
        betas=tuple(w / total for w in MS_SSIM_WEIGHTS[:count]),
    ).reshape(len(x))  # fmt: skip


def _registered_psnr(x: Tensor, x_hat: Tensor, *, shift: int) -> Tensor:
    height, width = x.shape[2:]
    most = min(shift, min(height, width) // 4)
    best = tensors.psnr(x, x_hat)
    for down, right in product(range(-most, most + 1), repeat=2):
        rows, columns = height - abs(down), width - abs(right)
        own = x[:, :, max(down, 0) :][:, :, :rows, max(right, 0) :][..., :columns]
        moved = x_hat[:, :, max(-down, 0) :][:, :, :rows, max(-right, 0) :][..., :columns]
        best = torch.maximum(best, tensors.psnr(own, moved))
    return best


def _gms(x: Tensor, x_hat: Tensor) -> Tensor:
    a, b = _gradient(x), _gradient(x_hat)
    return ((2 * a * b + GMS_CONSTANT) / (a.square() + b.square() + GMS_CONSTANT)).mean((1, 2, 3))


def _gradient(x: Tensor) -> Tensor:
    """Prewitt gradient magnitude of the luminance. (N, C, H, W) -> (N, 1, H', W')."""
    grey = x.mean(1, keepdim=True)
    if x.shape[1] == len(LUMA):
        grey = (x * x.new_tensor(LUMA).reshape(1, -1, 1, 1)).sum(1, keepdim=True)
    if min(x.shape[2:]) >= GMS_HALVED_FROM:
        grey = F.avg_pool2d(grey, 2)
    across = x.new_tensor([1.0, 0.0, -1.0]).expand(3, 3) / 3
    both = F.conv2d(grey, torch.stack([across, across.T])[:, None])
    return both.square().sum(1, keepdim=True).sqrt()
