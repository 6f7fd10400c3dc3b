"""Features as 32-bit floats."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from splitveil.wire.codecs.base import Array, Codec


class Raw(Codec):
    """32-bit floats, unchanged."""

    name: ClassVar[str] = "raw"
    wire_dtype: ClassVar[str] = "FP32"

    def calibrate(self, z: Array) -> Self:
        return self

    def encode(self, z: Array) -> Array:
        return z

    def decode(self, codes: Array) -> Array:
        return codes

    def payload_bytes(self, elements: int) -> int:
        return 4 * elements

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> Self:
        return self
