"""How near a guess is to the input, pixel by pixel and structure by structure."""

from torch import Tensor

from splitveil import tensors
from splitveil.metrics.base import Metric


def _mse(x: Tensor, x_hat: Tensor) -> Tensor:
    return (x - x_hat).square().mean((1, 2, 3))


def mse() -> Metric:
    """Mean squared error per element, pixels in [0, 1] (papers that sum over channels print C times this)."""
    return Metric("mse", "per element", higher_leaks=False, fn=_mse)


def psnr() -> Metric:
    """Peak signal-to-noise ratio of each image for a peak of 1, capped at 100 dB."""
    return Metric("psnr", "dB", higher_leaks=True, fn=tensors.psnr)


def ssim() -> Metric:
    """Structural similarity (Wang et al. 2004): 11 x 11 Gaussian window, sigma 1.5; 1 for equal images."""
    return Metric("ssim", "1", higher_leaks=True, fn=tensors.ssim)
