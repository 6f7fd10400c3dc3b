"""Resizing of uint8 images, and their conversion between grey and colour."""

import numpy as np
from PIL import Image

from splitveil.lab.data.base import Array
from splitveil.wire.pictures import Size, cropped, sides, to_array

__all__ = ["LUMA", "fitted", "resized", "to_array", "with_channels"]

LUMA = (19595, 38470, 7471)
"""Weights of red, green and blue over 65,536, the integers that Pillow uses."""


def resized(x: Array, size: int | Size) -> Array:
    """x: (N, C, H, W) uint8 -> (N, C, *size); what has another shape loses the ends of its longer side.

    `size` is that of a square, or (width, height).
    """
    width, height = sides(size)
    if x.shape[2:] == (height, width):
        return x
    out = np.empty((*x.shape[:2], height, width), dtype=np.uint8)
    for i, image in enumerate(x):
        for channel, plane in enumerate(image):
            out[i, channel] = np.asarray(cropped(Image.fromarray(plane), (width, height)))
    return out


def with_channels(x: Array, channels: int) -> Array:
    """x: (N, C, H, W) uint8 -> (N, channels, H, W); grey is the luma of ITU-R BT.601, colour is grey thrice."""
    if x.shape[1] == channels:
        return x
    if channels == 3:
        return np.repeat(x, 3, axis=1)
    luma = np.full(x[:, :1].shape, 1 << 15, dtype=np.uint32)
    for channel, weight in enumerate(LUMA):
        luma += x[:, channel : channel + 1] * np.uint32(weight)
    return (luma >> 16).astype(np.uint8)


def fitted(x: Array, channels: int, size: int | Size | None) -> Array:
    """x: (N, C, H, W) uint8 -> (N, channels, *size), resized where channels are fewest; None keeps the size."""
    x = with_channels(x, min(channels, x.shape[1]))
    return with_channels(x if size is None else resized(x, size), channels)
