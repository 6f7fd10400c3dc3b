"""What a reconstruction is worth: pure functions, per image, with declared unit and direction."""

from typing import TYPE_CHECKING

from splitveil.registry import Registry

if TYPE_CHECKING:
    from splitveil.metrics.base import Metric

__all__ = ["METRICS"]

METRICS: "Registry[Metric]" = Registry(
    "metric",
    {
        "mse": "splitveil.metrics.reconstruction:mse",
        "psnr": "splitveil.metrics.reconstruction:psnr",
        "ssim": "splitveil.metrics.reconstruction:ssim",
    },
)
