"""Images as PNG bytes."""

import io

import numpy as np
from PIL import Image

from splitveil.report.folder import Bytes

LARGEST_SIDE = 128
"""Pixels; larger images are shown reduced, so that a page of hundreds stays light."""


def picture(image: Bytes) -> Image.Image:
    """(C, H, W) uint8 -> grey for one channel, colour for three, else the mean over channels as grey."""
    match len(image):
        case 1:
            found = Image.fromarray(image[0])
        case 3:
            found = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        case _:
            found = Image.fromarray(image.mean(0).round().astype(np.uint8))
    if max(found.size) > LARGEST_SIDE:
        found.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.BOX)
    return found


def encode(image: Image.Image) -> bytes:
    """PNG without metadata."""
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
