"""Whether a request keeps the bundle's contract, decided before it may share a batch with others."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitveil.errors import BundleError, ContractError
from splitveil.records import Manifest, Tensor

DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}
"""Open Inference Protocol datatypes that cross, as they lie in raw contents."""
TYPED = {"FP32": "fp32_contents", "UINT8": "uint_contents"}
"""Fields for the same values outside raw contents."""
PARAMETER = "contract"
"""Request parameter, and key of the model configuration, that carries the contract id."""
ENVELOPE = 64 * 1024
"""Bytes that names, shapes and parameters of one message may take."""


def wire_dtype(features: Tensor) -> np.dtype[Any]:
    """How features lie in raw contents.

    Raises:
        BundleError: a datatype that this version does not know.
    """
    if features.datatype not in DTYPES:
        raise BundleError(
            f"features cross as {features.datatype}, expected {' or '.join(DTYPES)}; use the SplitVeil that wrote it."
        )
    return DTYPES[features.datatype]


class RequestRules:
    """What a server accepts for one bundle.

    Args:
        manifest: of the bundle.
        max_batch: rows of one request.
    """

    def __init__(self, manifest: Manifest, max_batch: int) -> None:
        self.features, self.output, self.contract = manifest.features, manifest.output, manifest.contract
        self.max_batch = max_batch
        self.dtype = wire_dtype(self.features)
        self.row_bytes = math.prod(self.features.shape[1:]) * self.dtype.itemsize

    @property
    def max_message(self) -> int:
        """Bytes of the largest message that can be right."""
        return max(self.row_bytes, 4 * self.output.shape[1]) * self.max_batch + ENVELOPE

    def read(self, request: Any) -> NDArray[Any]:
        """Features (n, *cut) of a ``ModelInferRequest``.

        Raises:
            ContractError: what is wrong with it, in one sentence that repeats none of the values.
        """
        problem = self._problem(request)
        if problem:
            raise ContractError(problem)
        given = request.inputs[0]
        shape = tuple(given.shape)
        if request.raw_input_contents:
            content = request.raw_input_contents[0]
            expected = shape[0] * self.row_bytes
            if len(content) != expected:
                raise ContractError(
                    f"expected {expected} bytes for {shape}, got {len(content)}; send the whole tensor."
                )
            z = np.frombuffer(content, self.dtype).reshape(shape)
        else:
            z = self._typed(given, shape)
        if z.dtype.kind == "f" and not np.isfinite(z).all():
            raise ContractError("features hold NaN or infinity; check the edge half and its input.")
        return z

    def _problem(self, request: Any) -> str | None:
        parameter = request.parameters.get(PARAMETER) if PARAMETER in request.parameters else None
        if parameter is not None and parameter.string_param != self.contract:
            return f"expected contract {self.contract}, got another; use the edge half of the bundle that is served."
        if len(request.inputs) != 1 or request.inputs[0].name != self.features.name:
            return f"expected exactly one input {self.features.name!r}; send the edge half's features under that name."
        given = request.inputs[0]
        if given.datatype != self.features.datatype:
            return f"expected datatype {self.features.datatype}, got another; send what the edge half makes."
        shape, sample = tuple(given.shape), self.features.shape[1:]
        if shape[1:] != sample or len(shape) != len(sample) + 1:
            return f"expected shape (n, {', '.join(map(str, sample))}), got {_short(shape)}; use this bundle's edge."
        if not 1 <= shape[0] <= self.max_batch:
            return f"expected 1 to {self.max_batch} rows, got {shape[0]}; split the batch."
        if any(o.name != self.output.name for o in request.outputs):
            return f"the only output is {self.output.name!r}; ask for that one or for none."
        if len(request.raw_input_contents) > 1:
            return f"expected one raw content, got {len(request.raw_input_contents)}; send one tensor."
        return None

    def _typed(self, given: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        values = getattr(given.contents, TYPED[self.features.datatype])
        if len(values) != math.prod(shape):
            raise ContractError(f"expected {math.prod(shape)} values for {shape}, got {len(values)}; send all of them.")
        wide = np.asarray(values)
        if self.dtype.kind == "u" and wide.max() > np.iinfo(self.dtype).max:
            raise ContractError("codes exceed 255; send UINT8 values.")
        return wide.astype(self.dtype).reshape(shape)


def _short(shape: tuple[int, ...]) -> str:
    return str(shape) if len(shape) <= 8 else f"{len(shape)} axes"
