"""Noise that nobody can predict: from the operating system's generator, never from a seed."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def standard_normal(shape: Sequence[int]) -> NDArray[np.float32]:
    """Independent standard normal values of that shape, by Box and Muller's transform (1958) of ``os.urandom``.

    The system's generator is cryptographically secure: whoever knows all noise so far cannot tell what comes next. No
    state is kept here, so neither a fork, a copied process nor two threads can draw the same.

    Uniforms have 32 bits, so no value exceeds 6.8 in magnitude (a standard normal does once in 10^11 draws).
    """
    count = int(np.prod(shape, dtype=np.int64))
    pairs = -(-count // 2)
    bits = np.frombuffer(os.urandom(8 * pairs), dtype=np.uint32)
    uniform = (bits.astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
    radius = np.sqrt(np.float32(-2) * np.log(uniform[:pairs]))
    angle = np.float32(2 * np.pi) * uniform[pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count].reshape(tuple(shape))
