"""Image files as a device reads them."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from splitveil.errors import DataError

MODES = {1: "L", 3: "RGB"}
JPEG_QUALITY = 75
"""Pillow's own choice; what a device that sends pictures would send."""


def read_images(path: Path, image_shape: tuple[int, int, int]) -> NDArray[Any]:
    """Images (n, C, H, W) of one picture, or of a ``.npy`` array (C, H, W) or (N, C, H, W); uint8 or float in [0, 1].

    Nothing is resized: how a picture is made to fit decides what the model sees, so whoever trained it must choose.

    Raises:
        DataError: missing, unreadable, or of another size than `image_shape`: (C, H, W).
    """
    return _array(path, image_shape) if path.suffix.lower() == ".npy" else _picture(path, image_shape)


def file_sizes(x: NDArray[Any]) -> tuple[int, int] | None:
    """Bytes of one image (C, H, W), uint8 or float in [0, 1], as PNG and as JPEG of `JPEG_QUALITY`.

    None where no picture file has that many channels. Floats are rounded to 8 bits, as any picture file holds.
    """
    if len(x) not in MODES:
        return None
    pixels = x if x.dtype == np.uint8 else np.round(255 * x).astype(np.uint8)
    picture = Image.fromarray(pixels[0] if len(x) == 1 else pixels.transpose(1, 2, 0))
    png, jpeg = BytesIO(), BytesIO()
    picture.save(png, "PNG", optimize=True)
    picture.save(jpeg, "JPEG", quality=JPEG_QUALITY)
    return png.tell(), jpeg.tell()


def _array(path: Path, image_shape: tuple[int, int, int]) -> NDArray[Any]:
    try:
        found = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check the path.") from None
    except (ValueError, EOFError):
        raise DataError(f"{path} is not a plain .npy array; write it with numpy.save.") from None
    x: NDArray[Any] = found[None] if found.ndim == 3 else found
    if x.shape[1:] != image_shape or len(x) == 0:
        raise DataError(f"{path} has shape {found.shape}, expected {image_shape} or (N, ...) of it; resize the images.")
    return x


def _picture(path: Path, image_shape: tuple[int, int, int]) -> NDArray[Any]:
    channels, height, width = image_shape
    if channels not in MODES:
        raise DataError(f"the model takes {channels} channels, which no picture has; give a .npy array.")
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert(MODES[channels]), dtype=np.uint8)
    except UnidentifiedImageError:
        raise DataError(f"{path} is no picture that Pillow knows; give PNG, JPEG or .npy.") from None
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}; check the file.") from None
    if pixels.shape[:2] != (height, width):
        found = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise DataError(f"{path} is {found} pixels, the model takes {width}x{height}; resize the picture first.")
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)[None]
