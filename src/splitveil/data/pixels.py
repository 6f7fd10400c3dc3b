"""Sizes and channels of uint8 images."""

import numpy as np
from PIL import Image, ImageOps

from splitveil.data.base import Array

LUMA = (19595, 38470, 7471)
"""Weights of red, green and blue over 65,536, the integers that Pillow uses."""


def square(picture: Image.Image, size: int) -> Image.Image:
    """The centre of `picture`, as wide as its shorter side, resized to `size` pixels with antialiasing (bilinear)."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return picture.resize((size, size), Image.Resampling.BILINEAR, box=box)


def resized(x: Array, size: int) -> Array:
    """x: (N, C, H, W) uint8 -> (N, C, size, size); what is not square loses the ends of its longer side."""
    if x.shape[2:] == (size, size):
        return x
    out = np.empty((*x.shape[:2], size, size), dtype=np.uint8)
    for i, image in enumerate(x):
        for channel, plane in enumerate(image):
            out[i, channel] = np.asarray(square(Image.fromarray(plane), size))
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


def fitted(x: Array, channels: int, size: int | None) -> Array:
    """x: (N, C, H, W) uint8 -> (N, channels, size, size), resized where channels are fewest; None keeps the size."""
    x = with_channels(x, min(channels, x.shape[1]))
    return with_channels(x if size is None else resized(x, size), channels)


def to_array(picture: Image.Image, channels: int, size: int | None) -> Array:
    """A Pillow picture, turned upright -> (channels, H, W) uint8, or (channels, size, size)."""
    upright = ImageOps.exif_transpose(picture)
    if "transparency" in upright.info:
        upright = upright.convert("RGBA")
    upright = upright.convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(upright if size is None else square(upright, size))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
