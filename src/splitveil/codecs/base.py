"""What every codec does."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

Array = TypeVar("Array", bound=Any)
"""A NumPy array or a torch tensor; a codec only uses what both have."""


class Codec(ABC):
    """Turns features into what crosses the wire and back: the adversary sees ``decode(encode(z))``.

    Codecs work in integer-valued floats; whoever sends casts to `wire_dtype`. Both sides hold the same `state`.
    """

    name: ClassVar[str]
    wire_dtype: ClassVar[str]
    """Open Inference Protocol datatype, ``FP32`` or ``UINT8``."""

    @abstractmethod
    def calibrate(self, z: Array) -> Self:
        """A codec fitted to z: (M, *cut); never to a private image."""

    @abstractmethod
    def encode(self, z: Array) -> Array:
        """z: (N, *cut) -> codes of the same shape."""

    @abstractmethod
    def decode(self, codes: Array) -> Array:
        """Codes: (N, *cut) -> features of the same shape."""

    @abstractmethod
    def payload_bytes(self, elements: int) -> int:
        """Bytes on the wire for one sample of that many elements, without protocol headers."""

    def packed_bytes(self, elements: int) -> int:
        """Bytes that the codes of one sample need if packed bit by bit, which the wire does not do."""
        return self.payload_bytes(elements)

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What calibration found, as plain JSON values."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> Self:
        """The codec that had this `state`."""

    @abstractmethod
    def __repr__(self) -> str:
        """As the registry reads it: ``uniform:bits=8``."""
