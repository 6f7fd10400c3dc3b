"""What the picture itself would cost on the wire: the honest alternative to sending features."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitveil.core.errors import DataError
from splitveil.core.records.device import PictureSize
from splitveil.wire.pictures.values import CHANNELS

JPEG_QUALITIES = (95, 75)


def picture_sizes(images: NDArray[Any]) -> list[PictureSize]:
    """Bytes of each image as a file: PNG, then JPEG at quality 95 and 75 (chroma halved at both, as Pillow does).

    No image is kept or written anywhere.

    Args:
        images: (n, H, W, C), uint8, grey (C = 1) or RGB (C = 3).

    Raises:
        DataError: no images, or of another shape or type.
    """
    if images.ndim != 4 or len(images) == 0 or images.shape[3] not in CHANNELS or images.dtype != np.uint8:
        raise DataError(
            f"expected uint8 images (n, H, W, 1 or 3), got {images.dtype} {images.shape}; convert them first."
        )
    sizes: dict[str, list[int]] = {}
    for pixels in images:
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        sizes.setdefault("png", []).append(_png(picture))
        for quality in JPEG_QUALITIES:
            sizes.setdefault(f"jpeg q{quality}", []).append(_jpeg(picture, quality))
    return [
        PictureSize(
            form=form,
            median=float(np.median(found)),
            p95=float(np.quantile(found, 0.95, method="higher")),
            n=len(images),
        )
        for form, found in sizes.items()
    ]


def _png(picture: Image.Image) -> int:
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.tell()


def _jpeg(picture: Image.Image, quality: int) -> int:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality, optimize=True)
    return out.tell()
