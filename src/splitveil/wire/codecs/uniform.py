"""Uniform quantisation per channel with static, calibrated scales: nothing per sample crosses but the codes."""

from collections.abc import Mapping
from math import prod
from typing import Any, ClassVar, Self

import numpy as np

from splitveil.core.errors import InputError
from splitveil.core.registry import Value
from splitveil.wire.codecs.arrays import beside, either
from splitveil.wire.codecs.base import Array, Codec
from splitveil.wire.codecs.bits import pack_codes, packed_length, unpack_codes


class Uniform(Codec):
    """2 to 8 bits per number, one scale per channel, fixed at calibration.

    Channels are axis 1 of feature maps (N, C, H, W) and of flat features (N, D), and the last axis of tokens (N, L, D).
    Codes of 8 bits cross in the features' shape, fewer as rows of packed bytes (N, ceil(bits * elements / 8)).

    Args:
        bits: 2 to 8.
        clip: share of each channel's calibration values that the scale covers, as many left out at either end; 1 covers
            all from the smallest to the largest. Below 1 rare large values are clipped and the others get finer steps.
    """

    name: ClassVar[str] = "uniform"
    wire_dtype: ClassVar[str] = "UINT8"

    def __init__(self, bits: int = 8, clip: float = 1.0) -> None:
        if bits not in range(2, 9):
            raise InputError(f"expected bits from 2 to 8, got {bits}; write uniform:bits=8.")
        if not 0.5 <= clip <= 1:
            raise InputError(f"expected clip from 0.5 to 1, got {clip}; write uniform:bits={bits},clip=0.999.")
        self.bits, self.clip = bits, float(clip)
        self.low: np.ndarray[Any, np.dtype[np.float32]] | None = None
        self.step: np.ndarray[Any, np.dtype[np.float32]] | None = None

    def calibrate(self, z: Array) -> Self:
        values = np.asarray(z, dtype=np.float32)
        axes = tuple(i for i in range(values.ndim) if i != self._axis(values.ndim))
        if self.clip == 1:
            low, high = values.min(axes), values.max(axes)
        else:
            outside = (1 - self.clip) / 2
            low, high = np.quantile(values, [outside, 1 - outside], axes).astype(np.float32)
        return self._with(low, np.maximum((high - low) / (2**self.bits - 1), np.float32(1e-8)))

    def encode(self, z: Array) -> Array:
        low, step = self._constants(z)
        codes: Array = ((z - low) / step).round().clip(0, 2**self.bits - 1)
        return codes

    def decode(self, codes: Array) -> Array:
        low, step = self._constants(codes)
        features: Array = codes * step + low
        return features

    def cell(self, z: Array) -> tuple[Array, Array]:
        _, step = self._constants(z)
        codes = self.encode(z)
        low = either(codes > 0, z - step / 2, -float("inf"))
        high = either(codes < 2**self.bits - 1, z + step / 2, float("inf"))
        return low, high

    def pack(self, codes: Array) -> Array:
        if self.bits == 8:
            return super().pack(codes)
        packed: Array = pack_codes(codes.reshape(-1, prod(codes.shape[1:])), self.bits)
        return packed

    def unpack(self, packed: Array, shape: tuple[int, ...]) -> Array:
        if self.bits == 8:
            return super().unpack(packed, shape)
        codes: Array = unpack_codes(packed, self.bits, prod(shape)).reshape(-1, *shape)
        return codes

    def wire_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if self.bits == 8 else (packed_length(prod(shape), self.bits),)

    def payload_bytes(self, elements: int) -> int:
        return packed_length(elements, self.bits)

    def state(self) -> dict[str, Any]:
        if self.low is None or self.step is None:
            return {}
        return {"low": self.low.tolist(), "step": self.step.tolist()}

    def restore(self, state: Mapping[str, Any]) -> Self:
        return self._with(np.asarray(state["low"], np.float32), np.asarray(state["step"], np.float32))

    def options(self) -> dict[str, Value]:
        # Left out where it changes nothing: this text is older than the option.
        return {"bits": self.bits} if self.clip == 1 else super().options()

    @staticmethod
    def _axis(ndim: int) -> int:
        return 2 if ndim == 3 else 1

    def _with(self, low: "np.ndarray[Any, Any]", step: "np.ndarray[Any, Any]") -> Self:
        fitted = type(self)(self.bits, self.clip)
        fitted.low, fitted.step = low, step
        return fitted

    def _constants(self, like: Any) -> tuple[Any, Any]:
        if self.low is None or self.step is None:
            raise InputError(
                "the uniform codec has no scales yet; call calibrate(z) with features of known images first."
            )
        shape = [1] * like.ndim
        shape[self._axis(like.ndim)] = -1
        return beside(like, self.low.reshape(shape)), beside(like, self.step.reshape(shape))
