"""Crops and resizes pictures of any size to one size."""

from collections.abc import Callable
from typing import TypeAlias

from PIL import Image

Size: TypeAlias = tuple[int, int]
"""(width, height) in pixels."""


def sides(size: int | Size) -> Size:
    """(width, height), for a number those of a square."""
    return (size, size) if isinstance(size, int) else size


def cropped(picture: Image.Image, size: Size) -> Image.Image:
    """The largest centred part with the shape of `size`, resized to it with antialiasing (bilinear)."""
    (width, height), (wide, high) = picture.size, size
    if width * high <= height * wide:
        part = (float(width), width * high / wide)
    else:
        part = (height * wide / high, float(height))
    left, top = (width - part[0]) / 2, (height - part[1]) / 2
    box = (left, top, left + part[0], top + part[1])
    return picture.resize(size, Image.Resampling.BILINEAR, box=box)


def squeezed(picture: Image.Image, size: Size) -> Image.Image:
    """All of it, resized to `size` with antialiasing (bilinear), whatever becomes of its shape."""
    return picture.resize(size, Image.Resampling.BILINEAR)


FITS: dict[str, Callable[[Image.Image, Size], Image.Image]] = {"centre": cropped, "none": squeezed}
"""By the `crop` of a manifest's `Picture`."""
