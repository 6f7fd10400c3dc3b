"""What z becomes on the wire. NumPy and torch arrays alike; nothing here imports torch."""

from splitveil.core.registry import Registry
from splitveil.wire.codecs.base import Array, Codec

__all__ = ["CODECS", "Array", "Codec"]

CODECS: Registry[Codec] = Registry(
    "codec",
    {
        "raw": "splitveil.wire.codecs.raw:Raw",
        "half": "splitveil.wire.codecs.half:Half",
        "uniform": "splitveil.wire.codecs.uniform:Uniform",
    },
)
