"""What a reconstruction is worth: pure functions, per image, with declared unit and direction."""

from typing import TYPE_CHECKING

from splitveil.registry import Registry

if TYPE_CHECKING:
    from splitveil.metrics.base import Metric

__all__ = ["ALWAYS", "METRICS"]

ALWAYS = ("mse", "psnr", "ssim")
"""Metrics that stand in every row; the others are asked for."""

METRICS: "Registry[Metric]" = Registry(
    "metric",
    {
        "mse": "splitveil.metrics.reconstruction:mse",
        "psnr": "splitveil.metrics.reconstruction:psnr",
        "ssim": "splitveil.metrics.reconstruction:ssim",
        "ms_ssim": "splitveil.metrics.reconstruction:ms_ssim",
        "registered_psnr": "splitveil.metrics.reconstruction:registered_psnr",
        "gms": "splitveil.metrics.reconstruction:gms",
        "lpips": "splitveil.metrics.perceptual:lpips",
    },
)
