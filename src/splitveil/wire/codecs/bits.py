"""Codes of fewer than eight bits, packed into bytes by arithmetic that NumPy, torch and ONNX do alike.

Bits follow one another, the highest of each code first, as ``numpy.packbits`` puts them; the last byte is filled with
zeros. The work is done in digits of as many bits as divide both a code and a byte (4 bits: 4, 6 bits: 2, 5 bits: 1), as
whole-number floats: those are exact, and any engine has division, floor and sum.
"""

from math import gcd
from typing import Any

import numpy as np

from splitveil.wire.codecs.arrays import as_bytes, as_float, beside, floored
from splitveil.wire.codecs.base import Array


def packed_length(count: int, bits: int) -> int:
    """Bytes that `count` codes need."""
    return -(-count * bits // 8)


def pack_codes(codes: Array, bits: int) -> Array:
    """Codes (N, count), whole-number floats below 2**bits -> bytes (N, packed_length), uint8."""
    count, unit = codes.shape[1], gcd(bits, 8)
    aligned = _aligned(codes, count, 8 // unit)
    digits = _digits(aligned, bits, unit).reshape(-1, aligned.shape[1] * bits // 8, 8 // unit)
    full = (digits * _places(digits, 8, unit)).sum(-1)[:, : packed_length(count, bits)]
    packed: Array = as_bytes(full)
    return packed


def unpack_codes(packed: Array, bits: int, count: int) -> Array:
    """Bytes (N, packed_length) -> codes (N, count) as 32-bit floats."""
    unit, length = gcd(bits, 8), packed_length(count, bits)
    flat = _digits(as_float(packed), 8, unit).reshape(-1, length * 8 // unit)
    digits = flat[:, : count * bits // unit].reshape(-1, count, bits // unit)
    codes: Array = (digits * _places(digits, bits, unit)).sum(-1)
    return codes


def _digits(values: Array, bits: int, unit: int) -> Array:
    """Values (N, n) of `bits` bits -> their digits (N, n, bits / unit) of `unit` bits, highest first."""
    whole = floored(values[..., None] / _places(values, bits, unit))
    digits: Array = whole - 2**unit * floored(whole / 2**unit)
    return digits


def _places(like: Any, bits: int, unit: int) -> Any:
    """(bits / unit,): what each digit is worth."""
    return beside(like, np.float32(2) ** np.arange(bits - unit, -1, -unit, dtype=np.float32))


def _aligned(codes: Array, count: int, group: int) -> Array:
    """Codes with zeros behind them up to a multiple of `group`, where whole bytes end."""
    missing = -count % group
    if not missing:
        return codes
    # A gather and a product: no one call that adds columns is both NumPy's and torch's.
    index = [min(i, count - 1) for i in range(count + missing)]
    aligned: Array = codes[:, index] * beside(codes, (np.arange(count + missing) < count).astype(np.float32))
    return aligned
