"""Uniform quantisation per channel with static, calibrated scales: nothing per sample crosses but the codes."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from splitveil.codecs.base import Array, Codec
from splitveil.errors import InputError


class Uniform(Codec):
    """8-bit codes per channel, scales fixed at calibration.

    Channels are axis 1 of feature maps (N, C, H, W) and of flat features (N, D), and the last axis of tokens (N, L, D).

    Args:
        bits: 2 to 8; fewer than 8 still travel as one byte each.
    """

    name: ClassVar[str] = "uniform"
    wire_dtype: ClassVar[str] = "UINT8"

    def __init__(self, bits: int = 8) -> None:
        if bits not in range(2, 9):
            raise InputError(f"expected bits from 2 to 8, got {bits}; write uniform:bits=8.")
        self.bits = bits
        self.low: np.ndarray[Any, np.dtype[np.float32]] | None = None
        self.step: np.ndarray[Any, np.dtype[np.float32]] | None = None

    def calibrate(self, z: Array) -> Self:
        values = np.asarray(z, dtype=np.float32)
        axes = tuple(i for i in range(values.ndim) if i != self._axis(values.ndim))
        low, high = values.min(axes), values.max(axes)
        return self._with(low, np.maximum((high - low) / (2**self.bits - 1), np.float32(1e-8)))

    def encode(self, z: Array) -> Array:
        low, step = self._constants(z)
        codes: Array = ((z - low) / step).round().clip(0, 2**self.bits - 1)
        return codes

    def decode(self, codes: Array) -> Array:
        low, step = self._constants(codes)
        features: Array = codes * step + low
        return features

    def payload_bytes(self, elements: int) -> int:
        return elements

    def packed_bytes(self, elements: int) -> int:
        return -(-elements * self.bits // 8)

    def state(self) -> dict[str, Any]:
        if self.low is None or self.step is None:
            return {}
        return {"low": self.low.tolist(), "step": self.step.tolist()}

    def restore(self, state: Mapping[str, Any]) -> Self:
        return self._with(np.asarray(state["low"], np.float32), np.asarray(state["step"], np.float32))

    def __repr__(self) -> str:
        return f"uniform:bits={self.bits}"

    @staticmethod
    def _axis(ndim: int) -> int:
        return 2 if ndim == 3 else 1

    def _with(self, low: "np.ndarray[Any, Any]", step: "np.ndarray[Any, Any]") -> Self:
        fitted = type(self)(self.bits)
        fitted.low, fitted.step = low, step
        return fitted

    def _constants(self, like: Any) -> tuple[Any, Any]:
        if self.low is None or self.step is None:
            raise InputError(
                "the uniform codec has no scales yet; call calibrate(z) with features of known images first."
            )
        shape = [1] * like.ndim
        shape[self._axis(like.ndim)] = -1
        low, step = self.low.reshape(shape), self.step.reshape(shape)
        if isinstance(like, np.ndarray):
            return low, step
        return like.new_tensor(low), like.new_tensor(step)
