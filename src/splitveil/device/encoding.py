"""`Encoder`: images through the edge half, its noise and the codec to the tensor that leaves the device."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitveil.core.errors import DataError
from splitveil.device.noise import standard_normal
from splitveil.wire.bundle import EDGE, Bundle
from splitveil.wire.datatypes import wire_dtype
from splitveil.wire.engine import LoadedHalf
from splitveil.wire.pictures.values import as_floats

Array = NDArray[Any]


class Encoder:
    """The edge half with its noise and its codec; thread-safe.

    Args:
        bundle: a full one or an edge half.
        threads: for one call.

    Raises:
        BundleError: the edge half is missing or cannot be loaded.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.manifest = bundle.manifest
        self.row_bytes = math.prod(self.manifest.features.shape[1:]) * wire_dtype(self.manifest.features).itemsize
        """Of one image's features on the wire."""
        self._half = LoadedHalf(bundle, EDGE, threads)

    def encode(self, x: NDArray[np.float32]) -> Array:
        """Checked images -> (n, ...) of the wire's type and shape, with noise that nobody has drawn before."""
        inputs = {self.manifest.input.name: x}
        if self.manifest.noise is not None:
            inputs[self.manifest.noise.name] = standard_normal((len(x), *self.manifest.noise.shape[1:]))
        return self._half.run(inputs)

    def checked(self, x: Array) -> NDArray[np.float32]:
        """x: (n, C, H, W), uint8 or float in [0, 1] -> the same as 32-bit floats in [0, 1].

        Raises:
            DataError: another shape or type, values outside [0, 1], or no image.
        """
        shape = self.manifest.image_shape
        if x.shape[1:] != shape or len(x) == 0:
            raise DataError(
                f"expected images {('n', *shape)}, got {x.shape}; give arrays of the size the model takes, or "
                "picture files to answer_pictures."
            )
        if x.dtype == np.uint8:
            return as_floats(x)
        if x.dtype.kind != "f":
            raise DataError(f"expected uint8 or float images, got {x.dtype}; convert them first.")
        if not (x.min() >= 0 and x.max() <= 1):
            raise DataError("expected values in [0, 1]; divide images of 0 to 255 by 255, or give them as uint8.")
        return x.astype(np.float32, copy=False)
