"""Datatypes of the Open Inference Protocol that cross the wire, as NumPy has them."""

from typing import Any

import numpy as np

from splitveil.core.errors import BundleError
from splitveil.core.records import Tensor

DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP16": np.dtype("<f2"), "UINT8": np.dtype("u1")}
"""As they lie in raw contents."""


def wire_dtype(features: Tensor) -> np.dtype[Any]:
    """How features lie in raw contents.

    Raises:
        BundleError: a datatype that this version does not know.
    """
    if features.datatype not in DTYPES:
        raise BundleError(
            f"features cross as {features.datatype}, expected {' or '.join(DTYPES)}; use the SplitVeil that wrote it."
        )
    return DTYPES[features.datatype]
