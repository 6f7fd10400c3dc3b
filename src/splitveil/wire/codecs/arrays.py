"""Operations that NumPy arrays and torch tensors name differently: casts, floors, constants beside an array."""

from typing import Any

import numpy as np


def as_float(values: Any) -> Any:
    """As 32-bit floats."""
    return values.astype(np.float32) if isinstance(values, np.ndarray) else values.float()


def as_half(values: Any) -> Any:
    """As 16-bit floats."""
    return values.astype(np.float16) if isinstance(values, np.ndarray) else values.half()


def as_bytes(values: Any) -> Any:
    """Whole numbers from 0 to 255 as bytes."""
    return values.astype(np.uint8) if isinstance(values, np.ndarray) else values.byte()


def floored(values: Any) -> Any:
    """Rounded down."""
    return np.floor(values) if isinstance(values, np.ndarray) else values.floor()


def beside(like: Any, constant: "np.ndarray[Any, Any]") -> Any:
    """`constant` as an array of the kind and place of `like`."""
    return constant if isinstance(like, np.ndarray) else like.new_tensor(constant)


def either(condition: Any, one: Any, other: Any) -> Any:
    """`one` where the condition holds, else `other`, an array or a number."""
    return np.where(condition, one, other) if isinstance(one, np.ndarray) else one.where(condition, other)
