"""Hostile requests over gRPC: messages through the stock library, and HTTP/2 frames by hand."""

import struct
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

from splitveil.server.service import ASKED, NAME, OPEN
from tests.faults.asking import INFER, message
from tests.faults.attempts import (
    CLOSED,
    LEFT,
    REFUSED,
    Call,
    Kind,
    Line,
    Scene,
    integer,
    junk,
    random_axis,
)
from tests.faults.exact import CUT

SERVICE = f"/{NAME}/"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4
Pieces = tuple[bytes, ...]


def good(scene: Scene, random: Random) -> Any:
    """A good request."""
    z = scene.exact.questions(random.randrange(2**23), random.randint(1, 3))
    return message(z, scene.exact.bundle.manifest.contract)


def changed(change: Callable[[Any, Random], object]) -> Callable[[Scene, Random], Pieces]:
    """A good request after a change."""

    def make(scene: Scene, random: Random) -> Pieces:
        request = good(scene, random)
        change(request, random)
        return (request.SerializeToString(),)

    return make


def _resized(request: Any, random: Random) -> None:
    content = request.raw_input_contents[0]
    request.raw_input_contents[0] = (content * 2)[: random.choice([0, 1, len(content) - 1, len(content) + 1])]


def _reshaped(request: Any, random: Random) -> None:
    del request.inputs[0].shape[:]
    axes = [max(-(2**63), min(2**63 - 1, integer(random))), *(random_axis(random) for _ in CUT)]
    request.inputs[0].shape.extend(axes)


def _claimed(request: Any, random: Random) -> None:
    request.inputs[0].shape[0] = random.choice([2**20, 2**31, 2**40, 2**62])
    request.raw_input_contents[0] = bytes(random.choice([0, 4, 512]))


def _unfinished(request: Any, random: Random) -> None:
    z = np.frombuffer(request.raw_input_contents[0], "<f4").copy()
    z[random.randrange(len(z))] = random.choice([np.nan, np.inf, -np.inf])
    request.raw_input_contents[0] = z.tobytes()


def _typed(request: Any, random: Random) -> None:
    del request.raw_input_contents[:]
    values = [0.5] * random.choice([0, 1, 127, 1000])
    random.choice([request.inputs[0].contents.fp32_contents, request.inputs[0].contents.fp64_contents]).extend(values)


def _recounted(request: Any, random: Random) -> None:
    match random.randrange(3):
        case 0:
            request.inputs.append(request.inputs[0])
        case 1:
            del request.inputs[:]
        case _:
            request.raw_input_contents.append(b"\0" * 512)


def _bomb(request: Any, random: Random) -> None:
    request.parameters["content_encoding"].string_param = random.choice(["zstd", "gzip", ""])
    request.raw_input_contents[0] = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**40) + junk(random)


def _set(field: str, *values: str) -> Callable[[Any, Random], None]:
    def change(request: Any, random: Random) -> None:
        setattr(request.inputs[0], field, random.choice(values))

    return change


def _contract(request: Any, random: Random) -> None:
    request.parameters["contract"].string_param = random.choice([random.randbytes(16).hex(), "", "x" * 5000])


def _unserved(request: Any, random: Random) -> None:
    match random.randrange(4):
        case 0:
            request.parameters[random.choice(["sequence_id", "priority", "classification"])].int64_param = 3
        case 1:
            request.parameters["timeout"].string_param = "5"
        case 2:
            request.outputs.add(name="logits").parameters["classification"].int64_param = 2
        case _:
            request.inputs[0].parameters["shared_memory_region"].string_param = "a"


def _in_two_ways(request: Any, random: Random) -> None:
    request.inputs[0].contents.fp32_contents.extend([0.5] * random.choice([1, 128]))


def _torn(scene: Scene, random: Random) -> Pieces:
    whole = good(scene, random).SerializeToString()
    return (whole[: random.randint(1, len(whole) - 1)],)


def _flipped(scene: Scene, random: Random) -> Pieces:
    request = good(scene, random)
    whole = bytearray(request.SerializeToString())
    head = len(whole) - len(request.raw_input_contents[0])  # a number changed to 1e38 has an infinite answer
    for _ in range(random.randint(1, 6)):
        whole[random.randrange(head)] = random.randrange(256)
    return (bytes(whole),)


def _bad_utf8(scene: Scene, random: Random) -> Pieces:
    bad = random.choice([b"\xff", b"\xc3\x28", b"\xed\xa0\x80"])
    return (b"\x0a" + bytes([len(bad)]) + bad + good(scene, random).SerializeToString(),)


def _oversize(scene: Scene, random: Random) -> Pieces:
    return (bytes(scene.payload + random.randint(1, 2**20)),)


def _whole(scene: Scene, random: Random) -> Pieces:
    return (good(scene, random).SerializeToString(),)


def _zeros(scene: Scene, random: Random) -> Pieces:
    return (bytes(2**23),)


def _named(scene: Scene, random: Random) -> Pieces:
    request = good(scene, random)
    request.model_name = random.choice(["other", "", "../exact", "x" * 9999])
    return (request.SerializeToString(),)


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """One of HTTP/2 (RFC 9113, 4.1)."""
    return len(content).to_bytes(3) + bytes([kind, flags]) + struct.pack(">I", stream) + content


def opened(token: str, *more: tuple[str, str]) -> bytes:
    """The start of a call of ``ModelInfer`` on stream 1; header fields as plain literals (RFC 7541, 6.2.2)."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", INFER), (":authority", "x")]
    fields += [("te", "trailers"), ("content-type", "application/grpc"), ("authorization", f"Bearer {token}"), *more]
    block = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in fields
    )
    return PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, block)


def _lying_message(scene: Scene, random: Random) -> Pieces:
    size = random.choice([2**31 - 1, 2**32 - 1, scene.payload + 1])
    data = b"\0" + struct.pack(">I", size) + junk(random)
    return (opened(scene.token) + frame(DATA, 0, 1, data) + frame(GOAWAY, 0, 0, bytes(8)),)


def _odd_frames(scene: Scene, random: Random) -> Pieces:
    start = opened(scene.token)
    data = b"\0\0\0\0\x04abcd"
    bad = random.choice([
        frame(DATA, END_STREAM, 1, b"\x01" + data[1:]), frame(DATA, END_STREAM, 3, data),
        frame(SETTINGS, 0, 0, b"\0\x04\xff\xff\xff\xff"), frame(HEADERS, END_HEADERS, 0, b"\x82"),
        frame(HEADERS, END_HEADERS, 3, b"\xff" * 60),
        frame(random.randrange(256), random.randrange(256), 1, junk(random)),
        b"\xff\xff\xff\0\0" + struct.pack(">I", 1) + junk(random),
    ])  # fmt: skip
    return (start + bad,)


def _half_message(scene: Scene, random: Random) -> Pieces:
    return (opened(scene.token) + frame(DATA, 0, 1, b"\0\0\0\1\0ab"),)


def _none(scene: Scene, random: Random) -> Pieces:
    return ()


def over(got: bytes) -> str:
    """What frames say: ``refused`` where the call or the connection was ended by the server, else ``closed``."""
    at = 0
    while at + 9 <= len(got):
        kind, flags = got[at + 3], got[at + 4]
        if kind in (RST, GOAWAY) or (kind == HEADERS and flags & END_STREAM):
            return REFUSED
        at += 9 + int.from_bytes(got[at : at + 3])
    return CLOSED


def _kind(
    name: str, make: Callable[[Scene, Random], Pieces], *expected: str, token: str = "good", method: str = INFER
) -> Kind:
    return Kind(f"gRPC: {name}", Call(make, token, method), frozenset(expected))


def _raw(name: str, make: Callable[[Scene, Random], Pieces], *expected: str, then: str = "shut") -> Kind:
    return Kind(f"gRPC: {name}", Line(0, make, over, then), frozenset(expected))


INVALID = "INVALID_ARGUMENT"
KINDS = (
    _kind("wrong number of bytes", changed(_resized), INVALID),
    _kind("negative or huge axes", changed(_reshaped), INVALID),
    _kind("claims 2^20 rows and more, tiny body", changed(_claimed), INVALID),
    _kind("NaN or infinity", changed(_unfinished), INVALID),
    _kind("typed contents of wrong type or count", changed(_typed), INVALID),
    _kind("two inputs, none, or two contents", changed(_recounted), INVALID),
    _kind("wrong datatype", changed(_set("datatype", "UINT8", "FP16", "BYTES", "", "x" * 5000)), INVALID),
    _kind("wrong input name", changed(_set("name", "x", "", "z" * 9999)), INVALID),
    _kind("wrong contract", changed(_contract), INVALID),
    _kind("packed bomb", changed(_bomb), INVALID),
    _kind("truncated message", _torn, INVALID),
    _kind("bad UTF-8", _bad_utf8, INVALID),
    _kind("some bytes of the message changed", _flipped, "OK", INVALID, "NOT_FOUND"),
    _kind("random bytes as message", lambda s, r: (junk(r),), INVALID, "NOT_FOUND"),
    _kind("no message at all", _none, INVALID),
    _kind("other model", _named, "NOT_FOUND"),
    _kind("other method", _whole, "UNIMPLEMENTED", method="/inference.GRPCInferenceService/ModelTrain"),
    _kind("oversize", _oversize, "RESOURCE_EXHAUSTED"),
    _kind("parameters that are not served", changed(_unserved), INVALID),
    _kind("raw contents and values beside them", changed(_in_two_ways), INVALID),
    _kind("a stream of requests", _whole, "UNIMPLEMENTED", method=f"{SERVICE}ModelStreamInfer"),
    _kind("other method, no token", _whole, "UNAUTHENTICATED", token="none", method=f"{SERVICE}ModelTrain"),
    Kind(
        "gRPC: two tokens, the good one first",
        Call(_whole, also="Bearer " + "0" * 64), frozenset({"UNAUTHENTICATED"}),
    ),
    *(
        Kind(f"gRPC: {name} without its message, no token", Call(_none, "none", SERVICE + name, silent=True),
             frozenset({"OK" if name in OPEN else "UNAUTHENTICATED"}))
        for name in (*OPEN, *ASKED, "ModelInfer")
    ),
    *(
        Kind(f"gRPC: {name} without its message", Call(_none, "good", SERVICE + name, silent=True),
             frozenset({"DEADLINE_EXCEEDED"}), slow=True)
        for name in ASKED
    ),
    _kind("no token", _whole, "UNAUTHENTICATED", token="none"),
    _kind("wrong token", _whole, "UNAUTHENTICATED", token="Bearer " + "0" * 64),
    _kind("token in another scheme", _whole, "UNAUTHENTICATED", token="Basic " + "0" * 64),
    _kind("replayed token (revoked)", _whole, "UNAUTHENTICATED", token="revoked"),
    Kind("gRPC: gzip bomb of 8 MiB", Call(_zeros, squeezed=True), frozenset({"RESOURCE_EXHAUSTED"})),
    Kind("gRPC: call without its message", Call(_none, silent=True), frozenset({"DEADLINE_EXCEEDED"}), slow=True),
    _raw("preface, then random bytes", lambda s, r: (PREFACE + junk(r),), REFUSED, CLOSED),
    _raw("random bytes", lambda s, r: (junk(r),), REFUSED, CLOSED),
    _raw("HTTP/1.1 on the gRPC port", lambda s, r: (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",), REFUSED, CLOSED),
    _raw("message length lies", _lying_message, REFUSED, CLOSED),
    _raw("frames that break HTTP/2", _odd_frames, REFUSED, CLOSED),
    _raw("half a message, then a reset", _half_message, LEFT, then="reset"),
    Kind("gRPC: silence", Line(0, _none, over), frozenset({CLOSED, REFUSED}), slow=True),
    Kind(
        "gRPC: half a message, line held open",
        Line(0, _half_message, over), frozenset({REFUSED}), slow=True,
    ),
)  # fmt: skip
