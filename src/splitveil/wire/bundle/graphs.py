"""What an ONNX graph would reach outside of its own bytes, read from its protobuf without any library of ONNX.

A tensor may say that its numbers lie in another file, which ONNX Runtime then reads below the working directory,
whoever owns it; a node may be of a library that someone registered. Tensors stand in initializers, attributes, sparse
tensors and functions, and graphs in attributes again (bodies of ``If``, ``Loop`` and ``Scan``): all of them are walked.
Field numbers: onnx.proto3, IR version 12. Whatever that file does not know is refused where it could hide something.
"""

from typing import NamedTuple

from splitveil.core.errors import BundleError
from splitveil.core.printing import phrase

DEEPEST = 90
"""Messages within messages; protobuf's own readers stop at 100."""
MOST_FIELDS = 4_000_000
"""Of one graph; a graph of a thousand nodes has some 20,000."""
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Of operators: those that ONNX Runtime has built in. Functions of the graph itself have domains of their own."""
FOREIGN = frozenset({"EPContext", "PythonOp", "PythonOpGrad", "ATen", "ATenGrad", "ExternalGradient", "YieldOp"})
"""Operators of `DOMAINS` that read files or run code which the graph does not hold."""
CONFIGURES = frozenset({"ort_config", "ep_context"})
"""Keys of a model's metadata by which ONNX Runtime may be configured."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MODEL, GRAPH, NODE, ATTRIBUTE, TENSOR, SPARSE, FUNCTION, TRAINING, ENTRY = (
    "model", "graph", "node", "attribute", "tensor", "sparse tensor", "function", "training", "entry",
)  # fmt: skip
WITHIN: dict[str, dict[int, str]] = {
    MODEL: {7: GRAPH, 14: ENTRY, 20: TRAINING, 25: FUNCTION},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    SPARSE: {1: TENSOR, 2: TENSOR},
    FUNCTION: {7: NODE, 11: ATTRIBUTE},
    TRAINING: {1: GRAPH, 2: GRAPH},
    TENSOR: {},
    ENTRY: {},
}
"""Kind of message -> field -> kind of message in it."""
EXTERNAL_DATA, DATA_LOCATION = 13, 14
OP_TYPE, DOMAIN, FUNCTION_DOMAIN, KEY = 4, 7, 10, 1


class UnreadableError(BundleError):
    """Bytes that are no ONNX graph."""


class Part(NamedTuple):
    """A message within the content."""

    kind: str
    start: int
    end: int
    depth: int


def refuse_reaching(content: bytes, name: str) -> None:
    """Make sure that this graph names nothing outside of its own bytes. name: for the message.

    Raises:
        UnreadableError: no ONNX graph.
        BundleError: external data, or an operator of a library.
    """
    try:
        found = _Walk(content).reach()
    except UnreadableError as error:
        raise UnreadableError(f"{name} is no ONNX graph: {error}") from None
    if found:
        raise BundleError(f"{name} {found}, expected a graph that is whole in itself; export it anew.")


def reaches(content: bytes) -> str:
    """The same as a phrase; empty where there is nothing to say, or no graph to be read."""
    try:
        return _Walk(content).reach()
    except UnreadableError:
        return ""


class _Walk:
    def __init__(self, content: bytes) -> None:
        self._content, self._fields = memoryview(content), 0
        self._own: set[str] = set()
        self._used: set[str] = set()

    def reach(self) -> str:
        """What is wrong, one phrase; empty when nothing is."""
        if bytes(self._content[4:8]) == b"ORTM":
            return "is in ONNX Runtime's own format"
        parts = [Part(MODEL, 0, len(self._content), 0)]
        while parts:
            part = parts.pop()
            if part.depth > DEEPEST:
                raise UnreadableError(f"expected messages at most {DEEPEST} deep; export the graph anew.")
            found = self._look(part, parts)
            if found:
                return found
        foreign = sorted(self._used - self._own - DOMAINS)
        return f"has operators of the domain {phrase(foreign[0], 60)!r}" if foreign else ""

    def _look(self, part: Part, parts: list[Part]) -> str:
        """One message; those in it join `parts`."""
        within = WITHIN[part.kind]
        at = part.start
        while at < part.end:
            self._fields += 1
            if self._fields > MOST_FIELDS:
                raise UnreadableError(f"expected at most {MOST_FIELDS:,} fields in a graph; export it anew.")
            tag, at = self._varint(at, part.end, 5)
            number, wire, start = tag >> 3, tag & 7, at
            value = 0
            if wire == VARINT:
                value, at = self._varint(at, part.end, 10)
            elif wire == BYTES:
                value, start = self._varint(at, part.end, 10)
                at = start + value
            elif wire in (FIXED64, FIXED32):
                at += 8 if wire == FIXED64 else 4
            else:
                raise UnreadableError("expected fields of protobuf, got another kind; export the graph anew.")
            if at > part.end or number == 0:
                raise UnreadableError("expected whole fields, got one that is cut short; export the graph anew.")
            if number in within and wire == BYTES:
                parts.append(Part(within[number], start, at, part.depth + 1))
            elif found := self._said(part.kind, number, wire, value, start, at):
                return found
        return ""

    def _said(self, kind: str, number: int, wire: int, value: int, start: int, end: int) -> str:
        """One field that holds no message."""
        if kind == TENSOR and (number == EXTERNAL_DATA or (number == DATA_LOCATION and (wire != VARINT or value))):
            return "keeps numbers in another file"
        if kind == NODE and number == OP_TYPE and self._text(start, end) in FOREIGN:
            return f"has the operator {self._text(start, end)}"
        if kind == NODE and number == DOMAIN:
            self._used.add(self._text(start, end))
        if kind == FUNCTION and number == FUNCTION_DOMAIN:
            self._own.add(self._text(start, end))
        if kind == ENTRY and number == KEY and self._text(start, end) in CONFIGURES:
            return "configures the engine that reads it"
        return ""

    def _text(self, start: int, end: int) -> str:
        return bytes(self._content[start : min(end, start + 256)]).decode("utf-8", "replace")

    def _varint(self, at: int, end: int, most: int) -> tuple[int, int]:
        value = shift = 0
        for position in range(at, min(end, at + most)):
            byte = self._content[position]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position + 1
            shift += 7
        raise UnreadableError("expected a number of protobuf, got none; export the graph anew.")
