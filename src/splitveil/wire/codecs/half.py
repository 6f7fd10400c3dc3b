"""Features as 16-bit floats."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from splitveil.wire.codecs.arrays import as_float, as_half, either
from splitveil.wire.codecs.base import Array, Codec

LARGEST = 65504.0
"""The largest finite 16-bit float; larger features are clipped to it, since infinity would be refused."""
RELATIVE, LEAST = 2.0**-11, 2.0**-25
"""Most that rounding moves a number: by a share of it, or, near 0, by half of the smallest 16-bit float."""


class Half(Codec):
    """IEEE 16-bit floats, rounded to nearest: half the bytes, about three decimal digits."""

    name: ClassVar[str] = "half"
    wire_dtype: ClassVar[str] = "FP16"

    def calibrate(self, z: Array) -> Self:
        return self

    def encode(self, z: Array) -> Array:
        codes: Array = as_float(as_half(z.clip(-LARGEST, LARGEST)))
        return codes

    def decode(self, codes: Array) -> Array:
        return codes

    def cell(self, z: Array) -> tuple[Array, Array]:
        reach = abs(z) * RELATIVE + LEAST
        low = either(z > -LARGEST, z - reach, -float("inf"))
        high = either(z < LARGEST, z + reach, float("inf"))
        return low, high

    def payload_bytes(self, elements: int) -> int:
        return 2 * elements

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> Self:
        return self
