"""One picture, or many of one size, as arrays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitveil.core.errors import DataError
from splitveil.core.records import Picture
from splitveil.wire.pictures.colour import upright
from splitveil.wire.pictures.faults import Faults
from splitveil.wire.pictures.fitting import FITS, Size, sides
from splitveil.wire.pictures.opening import opened

Bytes: TypeAlias = NDArray[np.uint8]


def to_array(picture: Image.Image, channels: int, size: int | Size | None, crop: str = "centre") -> Bytes:
    """A Pillow picture, turned upright -> (channels, H, W) uint8.

    `size` is that of a square, (width, height), or None to keep it.

    Raises:
        ValueError: see `upright`.
    """
    flat = upright(picture, channels)
    pixels = np.asarray(flat if size is None else FITS[crop](flat, sides(size)))
    return np.ascontiguousarray(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))


def read_picture(source: Path | str | Image.Image, picture: Picture) -> Bytes:
    """A file, or a picture of Pillow's, as `picture` says: (C, H, W) uint8.

    Raises:
        BrokenPictureError: a file that cannot be read.
        DataError: a picture of a kind that is refused.
    """
    if isinstance(source, Image.Image):
        try:
            return to_array(source, picture.channels, picture.size, picture.crop)
        except ValueError as error:
            raise DataError(f"cannot use the picture ({error}); convert it.") from None
    path = Path(source)
    with opened(path) as found:
        return to_array(found, picture.channels, picture.size, picture.crop)


def stacked(
    paths: Sequence[Path], channels: int, size: Size | None, faults: Faults, *, name: str, crop: str = "centre"
) -> tuple[Bytes, NDArray[np.int64]]:
    """Pictures (n, channels, H, W), one opened at a time, and the positions in `paths` of those that are whole.

    Broken ones are noted in `faults` and left out.

    Raises:
        DataError: no `size` was asked for and the pictures of `name`, a data set, have several.
    """
    first: tuple[Path, tuple[int, ...]] | None = None
    x: NDArray[Any] = np.empty((0, channels, *(size or (0, 0))[::-1]), dtype=np.uint8)
    whole = []
    for i, path in enumerate(paths):
        with faults.noted(), opened(path) as found:
            image = to_array(found, channels, size, crop)
            whole.append(i)
        if not whole or whole[-1] != i:
            continue
        if first is None:
            first = path, image.shape[1:]
            x = np.empty((len(paths), *image.shape), dtype=np.uint8)
        if image.shape[1:] != first[1]:
            raise DataError(
                f"pictures of {name} have several sizes, {first[0].name} {first[1]} and {path.name} "
                f"{image.shape[1:]}; add ?size=N to make all of them N x N, or ?size=WxH."
            )
        x[len(whole) - 1] = image
    return x[: len(whole)], np.array(whole, dtype=np.int64)
