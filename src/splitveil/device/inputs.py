"""Image files as a device reads them: as its training did."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitveil.core.errors import DataError
from splitveil.core.records import Manifest, Picture
from splitveil.wire.arrays import read_array
from splitveil.wire.pictures import SUFFIXES, UNREAD, Faults, assumed, picture_files, read_picture
from splitveil.wire.pictures.values import CHANNELS, as_bytes

JPEG_QUALITY = 75
"""Pillow's own choice; what a device that sends pictures would send."""


Named = tuple[str, NDArray[Any]]
"""A name to print, and one image (C, H, W), uint8 or float in [0, 1]."""


def read_inputs(paths: Sequence[Path], manifest: Manifest, faults: Faults) -> Iterator[Named]:
    """Images of files and folders, each read as the manifest says: pictures of any size, and ``.npy`` arrays as given.

    Of a folder all pictures at any depth, in order, but hidden ones. Broken pictures are noted in `faults`.

    Raises:
        DataError: a folder without pictures, an array that cannot be read or has another shape, or a model that takes
            no pictures.
        BundleError: a recipe that this version cannot follow.
    """
    for path in paths:
        if path.suffix.lower() == ".npy" and not path.is_dir():
            images = _array(path, manifest.image_shape)
            yield from ((str(path) if len(images) == 1 else f"{path}[{i}]", x) for i, x in enumerate(images))
            continue
        picture = picture_of(manifest)
        for file in _pictures(path) if path.is_dir() else [path]:
            with faults.noted():
                yield str(file), read_picture(file, picture)


def picture_of(manifest: Manifest) -> Picture:
    """How this bundle reads pictures.

    Raises:
        DataError: the model takes no pictures.
        BundleError: a recipe that this version cannot follow.
    """
    found = assumed(manifest)
    if found is None:
        channels = manifest.image_shape[0]
        raise DataError(f"the model takes {channels} channels, which no picture has; give a .npy array.")
    return found


def _pictures(folder: Path) -> list[Path]:
    found = picture_files(folder)
    if not found:
        raise DataError(
            f"{folder} holds no pictures ({' '.join(sorted(SUFFIXES - UNREAD))}); give a folder that does, or a file."
        )
    return found


def file_sizes(x: NDArray[Any]) -> tuple[int, int] | None:
    """Bytes of one image (C, H, W), uint8 or float in [0, 1], as PNG and as JPEG of `JPEG_QUALITY`.

    None where no picture file has that many channels. Floats are rounded to 8 bits, as any picture file holds.
    """
    if len(x) not in CHANNELS:
        return None
    pixels = x if x.dtype == np.uint8 else as_bytes(x)
    picture = Image.fromarray(pixels[0] if len(x) == 1 else pixels.transpose(1, 2, 0))
    png, jpeg = BytesIO(), BytesIO()
    picture.save(png, "PNG", optimize=True)
    picture.save(jpeg, "JPEG", quality=JPEG_QUALITY)
    return png.tell(), jpeg.tell()


def _array(path: Path, image_shape: tuple[int, int, int]) -> NDArray[Any]:
    found = read_array(path)
    x: NDArray[Any] = found[None] if found.ndim == 3 else found
    if x.shape[1:] != image_shape or len(x) == 0:
        raise DataError(f"{path} has shape {found.shape}, expected {image_shape} or (N, ...) of it; resize the images.")
    return x
