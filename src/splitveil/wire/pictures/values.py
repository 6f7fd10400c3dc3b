"""The values of an image: bytes in files and on the wire, float32 in [0, 1] before a model. Torch has `lab.images`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

CHANNELS = (1, 3)
"""Grey; red, green and blue."""
MOST = 255


def as_floats(x: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bytes of any shape -> [0, 1]."""
    return x.astype(np.float32) / np.float32(MOST)


def as_bytes(x: NDArray[Any]) -> NDArray[np.uint8]:
    """[0, 1] of any shape -> the nearest bytes."""
    return np.round(MOST * x).astype(np.uint8)
