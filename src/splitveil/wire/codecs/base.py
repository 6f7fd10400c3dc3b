"""`Codec`: the interface of every codec, from calibration on features to the bytes on the wire."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

from splitveil.core.registry import Named
from splitveil.wire.codecs.arrays import as_bytes, as_float, as_half

Array = TypeVar("Array", bound=Any)
"""A NumPy array or a torch tensor; a codec only uses what both have."""


class Codec(Named, ABC):
    """Turns features into what crosses the wire and back: the adversary sees ``decode(encode(z))``.

    `encode` and `decode` work in floats of the features' shape, which attacks and training read. `pack` and `unpack`
    are the lossless rest of the way to the wire's type and shape; both halves' graphs hold them, so that any server of
    the protocol can run the cloud half. Both sides hold the same `state`.
    """

    wire_dtype: ClassVar[str]
    """Open Inference Protocol datatype, ``FP32``, ``FP16`` or ``UINT8``."""

    @abstractmethod
    def calibrate(self, z: Array) -> Self:
        """A codec fitted to z: (M, *cut); never to a private image."""

    @abstractmethod
    def encode(self, z: Array) -> Array:
        """z: (N, *cut) -> codes of the same shape."""

    @abstractmethod
    def decode(self, codes: Array) -> Array:
        """Codes: (N, *cut) -> features of the same shape."""

    def cell(self, z: Array) -> tuple[Array, Array]:
        """Between what and what lies all that this decoded z may come of, infinite at an open end. Default: z itself.

        z: (N, *cut), as `decode` gave it -> (N, *cut) each.
        """
        return z, z

    @abstractmethod
    def payload_bytes(self, elements: int) -> int:
        """Bytes on the wire for one sample of that many elements, without protocol headers and compression."""

    def pack(self, codes: Array) -> Array:
        """Codes: (N, *cut) -> what crosses, of the wire's type and of `wire_shape`."""
        if self.wire_dtype == "FP32":
            return codes
        packed: Array = as_half(codes) if self.wire_dtype == "FP16" else as_bytes(codes)
        return packed

    def unpack(self, packed: Array, shape: tuple[int, ...]) -> Array:
        """What crossed -> codes (N, *shape) as 32-bit floats. shape: that of one sample's features."""
        codes: Array = as_float(packed)
        return codes

    def wire_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one sample on the wire. shape: that of one sample's features."""
        return shape

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What calibration found, as plain JSON values."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> Self:
        """The codec that had this `state`."""
