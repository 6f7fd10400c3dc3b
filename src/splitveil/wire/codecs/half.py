"""Features as 16-bit floats."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from splitveil.wire.codecs.arrays import as_float, as_half
from splitveil.wire.codecs.base import Array, Codec

LARGEST = 65504.0
"""The largest finite 16-bit float; larger features are clipped to it, since infinity would be refused."""


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

    def payload_bytes(self, elements: int) -> int:
        return 2 * elements

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> Self:
        return self
