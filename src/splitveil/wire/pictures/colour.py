"""Any picture as 8 bits of grey or of red, green and blue, upright."""

from typing import Any

import numpy as np
from PIL import Image

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF's Orientation."""
ORIENTATION, BITS, PHOTOMETRIC, WHITE_IS_ZERO = 0x0112, 258, 262, 0
"""Tags of EXIF and TIFF, and a value of the last."""

SHALLOW = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
DEEP = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})


def upright(picture: Image.Image, channels: int) -> Image.Image:
    """`picture` decoded, turned as its EXIF mark says, in mode L (1 channel) or RGB (3); alpha is dropped.

    CMYK becomes RGB by Pillow's formula, without a colour profile (JPEG's is taken for inverted, as Adobe writes it).
    Of 16 bits the upper 8 are taken, in grey as Pillow does in colour.

    Raises:
        ValueError: values without an agreed white (32-bit integers and floats) or colours without an agreed RGB (LAB).
    """
    picture.load()
    turn = TURNS.get(_orientation(picture))
    flat = _flat(picture).convert("L" if channels == 1 else "RGB")
    return flat if turn is None else flat.transpose(turn)


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # an EXIF block that nobody can read says nothing, and the pixels are whole: as every viewer does
        return 1


def _flat(picture: Image.Image) -> Image.Image:
    """In a mode whose conversion to grey and RGB is right."""
    # Integers in Pillow's mode I: 16 bits where the format has no more; a TIFF's may be anything.
    if picture.mode in DEEP or (picture.mode == "I" and picture.format in ("PNG", "PPM")):
        return _upper_bits(picture)
    if picture.mode not in SHALLOW:
        raise ValueError(f"mode {picture.mode}, expected 8 or 16 bits of grey, palette, RGB, CMYK or YCbCr")
    return picture.convert("RGBA") if "transparency" in picture.info else picture


def _upper_bits(picture: Image.Image) -> Image.Image:
    tags: Any = getattr(picture, "tag_v2", {})
    values = np.asarray(picture).astype(np.int64) >> (tags.get(BITS, (16,))[0] - 8)
    # Pillow inverts these for 8 bits, not for 16.
    inverted = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
    return Image.fromarray((255 - values if inverted else values).clip(0, 255).astype(np.uint8))
