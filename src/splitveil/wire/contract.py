"""Whether a request keeps the bundle's contract, decided before it may share a batch with others."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitveil.core.errors import ContractError
from splitveil.core.records import Manifest
from splitveil.wire import compression
from splitveil.wire.datatypes import wire_dtype
from splitveil.wire.numbers import NoNumbersError, as_array, flat

TYPED = {"FP32": "fp32_contents", "UINT8": "uint_contents"}
"""Fields for the same values outside raw contents."""
PARAMETER = "contract"
"""Request parameter, and key of the model configuration, that carries the contract id."""
PREVIOUS = "previous_contract"
"""Key of the model configuration: the contract of the bundle before, whose devices are still answered."""
TIMEOUT = "timeout"
"""Request parameter, in microseconds, beside the protocol's own deadline."""
SERVED = {PARAMETER: str, TIMEOUT: int, compression.PARAMETER: str}
"""Parameters of a request that mean something here, and their types."""
ENVELOPE = 64 * 1024
"""Bytes that names, shapes and parameters of one message may take."""
UNDEFENDED = "none"


class BrokenRuleError(ContractError):
    """A request that breaks one rule of the contract; `rule` names it for metrics and logs."""

    def __init__(self, rule: str, sentence: str) -> None:
        super().__init__(sentence)
        self.rule = rule


class RequestRules:
    """What a server accepts for one bundle.

    Raw features have the shape and type of defended ones, so a server cannot see whether the defence ran. What it can
    ask for is the contract id, which only the bundle's own edge half carries; hence it must be there where a defence
    is on. That keeps honest clients from sending raw features by mistake, not a client that lies.

    Args:
        manifest: of the bundle.
        max_batch: rows of one request.
        contract_required: None for wherever the bundle has a defence.
    """

    def __init__(self, manifest: Manifest, max_batch: int, contract_required: bool | None = None) -> None:
        self.features, self.output, self.contract = manifest.features, manifest.output, manifest.contract
        self.max_batch, self.defense = max_batch, manifest.defense
        self.contract_required = self.defense != UNDEFENDED if contract_required is None else contract_required
        self.dtype = wire_dtype(self.features)
        self.row_bytes = math.prod(self.features.shape[1:]) * self.dtype.itemsize

    @property
    def max_message(self) -> int:
        """Bytes of the largest message that can be right."""
        return max(self.row_bytes, 4 * self.output.shape[1]) * self.max_batch + ENVELOPE

    def read(self, request: Any) -> NDArray[Any]:
        """Features (n, *cut) of a ``ModelInferRequest``.

        Raises:
            BrokenRuleError: what is wrong with it, in one sentence that repeats none of the values.
        """
        if len(request.inputs) != 1:
            raise self._wrong_input()
        given = request.inputs[0]
        shape = tuple(given.shape)
        for key, parameter in request.parameters.items():
            if key not in SERVED or (key == TIMEOUT and not parameter.HasField("int64_param")):
                raise not_served()
        if given.parameters or any(output.parameters for output in request.outputs):
            raise not_served()
        contract = request.parameters[PARAMETER].string_param if PARAMETER in request.parameters else None
        self.check(given.name, given.datatype, shape, contract, [o.name for o in request.outputs])
        contents = request.raw_input_contents
        if len(contents) > 1:
            raise BrokenRuleError("content", f"expected one raw content, got {len(contents)}; send one tensor.")
        if not contents:
            if self.features.datatype not in TYPED:
                raise BrokenRuleError("content", f"{self.features.datatype} has no typed contents; send raw contents.")
            return self.typed(getattr(given.contents, TYPED[self.features.datatype]), shape)
        if given.HasField("contents"):
            raise twice()
        packed = request.parameters
        encoding = packed[compression.PARAMETER].string_param if compression.PARAMETER in packed else None
        return self.binary(contents[0], shape, encoding)

    def check(
        self, name: object, datatype: object, shape: Sequence[int], contract: object, outputs: Iterable[object]
    ) -> None:
        """Everything about a request but its values.

        Args:
            name: of the input.
            datatype: of the input.
            shape: of the input, plain integers.
            contract: the parameter; None if it is missing.
            outputs: names that are asked for; none means all.

        Raises:
            BrokenRuleError: the first rule that it breaks.
        """
        if contract is None and self.contract_required:
            raise BrokenRuleError(
                "contract",
                f"expected the parameter {PARAMETER!r}, since the defence {self.defense} is on and raw features would "
                "look the same, got none; ask through this bundle's edge half, or start the server with "
                "--allow-missing-contract.",
            )
        if contract is not None and contract != self.contract:
            raise BrokenRuleError(
                "contract",
                f"expected contract {self.contract}, got another; use the edge half of the bundle that is served.",
            )
        if name != self.features.name:
            raise self._wrong_input()
        if datatype != self.features.datatype:
            raise BrokenRuleError(
                "datatype", f"expected datatype {self.features.datatype}, got another; send what the edge half makes."
            )
        shape, sample = tuple(shape), self.features.shape[1:]
        if shape[1:] != sample or len(shape) != len(sample) + 1:
            expected = f"(n, {', '.join(map(str, sample))})"
            raise BrokenRuleError(
                "shape", f"expected shape {expected}, got {_short(shape)}; use this bundle's edge half."
            )
        if not 1 <= shape[0] <= self.max_batch:
            raise BrokenRuleError(
                "rows", f"expected 1 to {self.max_batch} rows, got {_number(shape[0])}; split the batch."
            )
        if any(output != self.output.name for output in outputs):
            raise BrokenRuleError("output", f"the only output is {self.output.name!r}; ask for that one or for none.")

    def binary(self, content: bytes | memoryview, shape: Sequence[int], encoding: object = None) -> NDArray[Any]:
        """Features (n, *cut) from raw content of a checked `shape`, without copying it; packed if `encoding` says how.

        Raises:
            BrokenRuleError: too few or too many bytes, NaN or infinity.
        """
        expected = shape[0] * self.row_bytes
        if encoding is not None:
            try:
                content = compression.unpack(bytes(content), str(encoding), expected)
            except ContractError as error:
                raise BrokenRuleError("encoding", str(error)) from None
        if len(content) != expected:
            raise BrokenRuleError(
                "content", f"expected {expected} bytes for {tuple(shape)}, got {len(content)}; send the whole tensor."
            )
        return self._finite(np.frombuffer(content, self.dtype).reshape(shape))

    def typed(self, values: Any, shape: Sequence[int]) -> NDArray[Any]:
        """Features (n, *cut) from a list of numbers, flat or nested, of a checked `shape`.

        Raises:
            BrokenRuleError: too few, too many, no numbers, NaN or infinity, or codes that do not fit.
        """
        expected = math.prod(shape)
        codes = self.dtype.kind == "u"
        try:
            row = flat(values, expected)
            if len(row) != expected:
                raise BrokenRuleError(
                    "content", f"expected {expected} values for {tuple(shape)}, got {len(row)}; send all of them."
                )
            wide = as_array(row, whole=codes)
        except NoNumbersError:
            raise BrokenRuleError(
                "values", f"expected {self.features.datatype} values, got others; send numbers."
            ) from None
        if codes and not 0 <= wide.min() <= wide.max() <= np.iinfo(self.dtype).max:
            raise BrokenRuleError("values", "codes lie below 0 or exceed 255; send UINT8 values.")
        with np.errstate(over="ignore"):
            return self._finite(wide.astype(self.dtype).reshape(shape))

    def _finite(self, z: NDArray[Any]) -> NDArray[Any]:
        if z.dtype.kind == "f" and not np.isfinite(z).all():
            raise BrokenRuleError("values", "features hold NaN or infinity; check the edge half and its input.")
        return z

    def _wrong_input(self) -> BrokenRuleError:
        name = self.features.name
        return BrokenRuleError(
            "input", f"expected exactly one input {name!r}; send the edge half's features under that name."
        )


def not_served() -> BrokenRuleError:
    """Of a parameter that means nothing here: what a client asks for is done or refused, never left out."""
    return BrokenRuleError(
        "parameter",
        f"expected no other parameters than {', '.join(SERVED)} of a request, each of its type; leave the rest out: "
        "this server answers logits, no classes, and keeps no sequences and no shared memory.",
    )


def twice() -> BrokenRuleError:
    """Of one tensor in two ways."""
    return BrokenRuleError("content", "the input has both raw contents and values; send it in one of the two ways.")


def _short(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(_number, shape))})" if len(shape) <= 8 else f"{len(shape)} axes"


def _number(size: int) -> str:
    """JSON knows integers of any length; a message does not repeat them."""
    return str(size) if abs(size) < 2**63 else "more than 64 bits"
