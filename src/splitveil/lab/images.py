"""Images, the one kind of data so far, as tensors: bytes where they are kept, floats in [0, 1] where they are used."""

import torch
from torch import Tensor

from splitveil.wire.pictures.values import CHANNELS, MOST

__all__ = ["CHANNELS", "as_bytes", "as_floats"]


def as_floats(x: Tensor) -> Tensor:
    """(..., C, H, W) uint8 -> float32 in [0, 1]."""
    return x.float() / MOST


def as_bytes(x: Tensor) -> Tensor:
    """(..., C, H, W) in [0, 1] -> the nearest uint8; what lies outside is clipped."""
    return (x * MOST).round().clamp(0, MOST).to(torch.uint8)
