"""What z becomes on the wire. NumPy and torch arrays alike; nothing here imports torch."""

from splitveil.codecs.base import Array, Codec
from splitveil.registry import Registry

__all__ = ["CODECS", "Array", "Codec"]

CODECS: Registry[Codec] = Registry(
    "codec",
    {
        "raw": "splitveil.codecs.raw:Raw",
        "half": "splitveil.codecs.half:Half",
        "uniform": "splitveil.codecs.uniform:Uniform",
    },
)
