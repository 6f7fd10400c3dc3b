"""`Local`: logits made on the device, by the bundle's cloud half or a function, where no server answers."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitveil.core.errors import AnswerError, BundleError, InputError
from splitveil.wire.bundle import CLOUD, Bundle
from splitveil.wire.engine import LoadedHalf

Fallback = str | Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""``"cloud.onnx"``, or images (n, C, H, W) in [0, 1] -> logits (n, K), such as an early exit or a smaller model."""


class Local:
    """Answers on the device. Features never leave it.

    Args:
        bundle: a full one for ``"cloud.onnx"``, which then takes the cloud half's memory and time on the device.
        fallback: what to run.
        threads: for the cloud half.

    Raises:
        InputError: another name than ``"cloud.onnx"``.
        BundleError: the bundle is an edge half alone, or the cloud half cannot be loaded.
    """

    def __init__(self, bundle: Bundle, fallback: Fallback, threads: int) -> None:
        self._manifest = bundle.manifest
        self._own = fallback if callable(fallback) else None
        if isinstance(fallback, str) and fallback != CLOUD:
            raise InputError(f"expected {CLOUD!r} or a function, got {fallback!r}; use fallback={CLOUD!r}.")
        self._cloud = LoadedHalf(bundle, CLOUD, threads) if self._own is None else None

    def __call__(self, x: NDArray[np.float32], z: NDArray[Any]) -> NDArray[np.float32]:
        """Logits (n, K) of images x (n, C, H, W) whose features are z.

        Raises:
            BundleError: logits of another shape.
            AnswerError: NaN or infinite logits.
        """
        logits = self._logits(x, z)
        if not np.isfinite(logits).all():
            raise AnswerError(
                "expected finite answers of the fallback, got NaN or infinity; check its weights and the picture."
            )
        return logits

    def _logits(self, x: NDArray[np.float32], z: NDArray[Any]) -> NDArray[np.float32]:
        if self._cloud is not None:
            return self._cloud.run({self._manifest.features.name: z})
        logits = np.asarray(self._own(x) if self._own is not None else None, np.float32)
        expected = (len(x), self._manifest.output.shape[1])
        if logits.shape != expected:
            raise BundleError(f"expected {expected} logits of the fallback, got {logits.shape}; give the same classes.")
        return logits
