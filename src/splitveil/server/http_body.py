"""Bodies of the protocol over HTTP: a JSON head, and tensors behind it as raw bytes (binary tensor extension)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from splitveil.core.records import Manifest
from splitveil.wire import compression
from splitveil.wire.contract import SERVED, BrokenRuleError, RequestRules, not_served, twice

HEAD_LENGTH = "inference-header-content-length"
SIZE, BINARY, BINARY_OUTPUT = "binary_data_size", "binary_data", "binary_data_output"
OF_REQUEST = {**SERVED, BINARY_OUTPUT: bool}
OF_INPUT = {SIZE: int, compression.PARAMETER: str}
OF_OUTPUT = {BINARY: bool}
"""Parameters of each place, and their types."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ: of two alike one reader takes the first and another the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


READER = json.JSONDecoder(object_pairs_hook=_once)


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request, read but not yet judged."""

    id: str | None
    parameters: Mapping[str, Any]
    name: object
    datatype: object
    shape: tuple[int, ...]
    values: Any
    content: memoryview | None
    encoding: object
    outputs: Sequence[object]
    binary: bool

    def features(self, rules: RequestRules) -> NDArray[Any]:
        """Features (n, *cut).

        Raises:
            BrokenRuleError: as the rules say.
        """
        rules.check(self.name, self.datatype, self.shape, self.parameters.get("contract"), self.outputs)
        if self.content is not None:
            return rules.binary(self.content, self.shape, self.encoding)
        return rules.typed(self.values, self.shape)


def read_request(body: bytes, head_length: str | None) -> InferRequest:
    """Take a body apart.

    Args:
        body: the whole.
        head_length: header ``Inference-Header-Content-Length``; without it all is JSON.

    Raises:
        BrokenRuleError: it is not what the protocol says.
    """
    size = len(body)
    if head_length is not None:
        if not (head_length.isascii() and head_length.isdigit() and len(head_length) < 16 and int(head_length) <= size):
            raise _wrong("Inference-Header-Content-Length is not the length of the JSON part; send its bytes")
        size = int(head_length)
    try:
        head = READER.decode(body[:size].decode())
    except (ValueError, RecursionError):
        raise _wrong("the request is not JSON in UTF-8 with each key once; use a v2 client") from None
    if not isinstance(head, dict):
        raise _wrong("the request is not a JSON object; use a v2 client")
    identity = head.get("id")
    if identity is not None and not isinstance(identity, str):
        raise _wrong("expected a string as id; quote it or leave it out")
    parameters = _parameters(head, "parameters", OF_REQUEST)
    inputs, outputs = head.get("inputs"), head.get("outputs") or []
    if not (isinstance(inputs, list) and len(inputs) == 1 and isinstance(inputs[0], dict)):
        raise _wrong("expected exactly one input; send the edge half's features as the only one", "input")
    if not (isinstance(outputs, list) and all(isinstance(o, dict) for o in outputs)):
        raise _wrong("outputs is not a list of objects; name the outputs or leave it out")
    given = inputs[0]
    own = _parameters(given, "the input's parameters", OF_INPUT)
    shape = given.get("shape")
    if not (isinstance(shape, list) and all(type(axis) is int for axis in shape)):
        raise _wrong("shape is not a list of integers; send the features' shape", "shape")
    content = None
    if SIZE in own:
        if own[SIZE] != len(body) - size or type(own[SIZE]) is not int:
            raise _wrong("binary_data_size is not the length of what follows the JSON part; send its bytes", "content")
        if given.get("data") is not None:
            raise twice()
        content = memoryview(body)[size:]
    elif len(body) != size:
        raise _wrong("bytes follow the JSON part but no binary_data_size tells of them; name it", "content")
    wanted = [_parameters(output, "the output's parameters", OF_OUTPUT) for output in outputs]
    binary = wanted[0].get(BINARY) if wanted else None
    if binary is None:
        binary = parameters.get(BINARY_OUTPUT, False)
    return InferRequest(
        identity, parameters, given.get("name"), given.get("datatype"), tuple(shape), given.get("data"), content,
        parameters.get(compression.PARAMETER, own.get(compression.PARAMETER)), [o.get("name") for o in outputs],
        binary is True,
    )  # fmt: skip


def write_answer(
    manifest: Manifest, version: str, identity: str | None, logits: NDArray[Any], binary: bool
) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON part where a tensor follows it. logits: (n, K), float32."""
    tensor: dict[str, Any] = {
        "name": manifest.output.name, "datatype": manifest.output.datatype, "shape": list(logits.shape),
    }  # fmt: skip
    content = logits.tobytes() if binary else b""
    if binary:
        tensor["parameters"] = {SIZE: len(content)}
    else:
        tensor["data"] = logits.ravel().tolist()
    head: dict[str, Any] = {"model_name": manifest.name, "model_version": version, "outputs": [tensor]}
    if identity is not None:
        head["id"] = identity
    text = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
    return text + content, len(text) if binary else None


def _parameters(of: Mapping[str, Any], what: str, known: Mapping[str, type]) -> Mapping[str, Any]:
    given = of.get("parameters", {})
    if not isinstance(given, dict):
        raise _wrong(f"expected {what} as a JSON object; use a v2 client")
    for key, value in given.items():
        # Sizes and the contract have rules of their own, with words that say more.
        if key not in known or (type(value) is not known[key] and key not in (SIZE, "contract", compression.PARAMETER)):
            raise not_served()
    return given


def _wrong(problem: str, rule: str = "message") -> BrokenRuleError:
    return BrokenRuleError(rule, f"{problem}.")
