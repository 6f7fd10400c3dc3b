"""What a reconstruction is worth: pure functions, per image, with declared unit and direction."""

from typing import TYPE_CHECKING

from splitveil.core.records import STANDING
from splitveil.core.registry import Registry

if TYPE_CHECKING:
    from splitveil.lab.metrics.base import Metric

__all__ = ["ALWAYS", "METRICS"]

ALWAYS = tuple(STANDING)
"""Metrics that stand in every row; the others are asked for."""

METRICS: "Registry[Metric]" = Registry(
    "metric",
    {
        "mse": "splitveil.lab.metrics.reconstruction:mse",
        "psnr": "splitveil.lab.metrics.reconstruction:psnr",
        "ssim": "splitveil.lab.metrics.reconstruction:ssim",
        "ms_ssim": "splitveil.lab.metrics.reconstruction:ms_ssim",
        "registered_psnr": "splitveil.lab.metrics.reconstruction:registered_psnr",
        "gms": "splitveil.lab.metrics.reconstruction:gms",
        "lpips": "splitveil.lab.metrics.perceptual:lpips",
    },
)
