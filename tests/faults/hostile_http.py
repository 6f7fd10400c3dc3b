"""Hostile requests over HTTP: whole requests whose content is wrong."""

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

from tests.faults.asking import head, http_request
from tests.faults.attempts import (
    Kind,
    Line,
    Scene,
    integer,
    junk,
    random_axis,
    statuses,
)
from tests.faults.exact import CUT

ROW = 4 * 8 * 4 * 4
END = {"Connection": "close"}


def good(scene: Scene, random: Random) -> tuple[dict[str, Any], bytes]:
    """A good request's head and content."""
    z = scene.exact.questions(random.randrange(2**23), random.randint(1, 3))
    return head(z, scene.exact.bundle.manifest.contract), z.tobytes()


def sent(scene: Scene, text: bytes, content: bytes = b"", **headers: str) -> tuple[bytes, ...]:
    """As one piece, with a token, on a connection that ends with the answer."""
    return (http_request(text, content, scene.token, **{**END, **headers}),)


def changed(
    change: Callable[[dict[str, Any], bytes, Random], bytes | None],
) -> Callable[[Scene, Random], tuple[bytes, ...]]:
    """A good request whose head is changed in place; what the change gives, if anything, is the content."""

    def make(scene: Scene, random: Random) -> tuple[bytes, ...]:
        asked, content = good(scene, random)
        other = change(asked, content, random)
        return sent(scene, json.dumps(asked).encode(), content if other is None else other)

    return make


def put(key: str, value: Callable[[Random], Any]) -> Callable[[Scene, Random], tuple[bytes, ...]]:
    """A good request with another value in its input."""

    def change(asked: dict[str, Any], content: bytes, random: Random) -> None:
        asked["inputs"][0][key] = value(random)

    return changed(change)


def _size_of(asked: dict[str, Any], content: bytes) -> bytes:
    asked["inputs"][0]["parameters"]["binary_data_size"] = len(content)
    return content


def _resized(asked: dict[str, Any], content: bytes, random: Random) -> bytes:
    size = random.choice([0, 1, 3, len(content) - 1, len(content) + 1, 2 * len(content)])
    return _size_of(asked, (content * 2)[:size])


def _claimed(asked: dict[str, Any], content: bytes, random: Random) -> bytes:
    asked["inputs"][0]["shape"] = [random.choice([2**20, 2**31, 2**40, 2**62, 10**4000]), *CUT]
    return _size_of(asked, content[: random.choice([0, 4, ROW])])


def _said_size(asked: dict[str, Any], content: bytes, random: Random) -> None:
    asked["inputs"][0]["parameters"]["binary_data_size"] = random.choice(
        [-1, 2**40, len(content) + 4, "all", None, 1.5]
    )


def _unfinished(asked: dict[str, Any], content: bytes, random: Random) -> bytes:
    z = np.frombuffer(content, "<f4").copy()
    z[random.randrange(len(z))] = random.choice([np.nan, np.inf, -np.inf])
    return z.tobytes()


def _as_numbers(asked: dict[str, Any], content: bytes, random: Random) -> bytes:
    given = asked["inputs"][0]
    given["parameters"] = {}
    many = ROW // 4 * given["shape"][0]
    given["data"] = random.choice([[0.5], ["a"] * many, [True] * many, [[1], [1, 2]], [1e300] * many, [10**50] * many])
    return b""


def _bomb(asked: dict[str, Any], content: bytes, random: Random) -> bytes:
    asked["parameters"]["content_encoding"] = random.choice(["zstd", "gzip", "br", 7])
    # A zstd frame that claims 2^40 bytes, then nothing of use.
    return _size_of(asked, b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**40) + junk(random))


BLOWN: tuple[Any, ...] = (
    ["x" * 3000] + ["a"] * (ROW // 4 - 1), [[]] * (ROW // 4), [{}] * (ROW // 4), ["1.5"] * (ROW // 4), "1" * (ROW // 4),
    [[[0.5] * (ROW // 4)] * 3] * 3, [0.5] * (ROW // 4 - 1) + [None],
)  # fmt: skip
"""Values of which an array would be far larger than the request, or none at all."""


def _blown(asked: dict[str, Any], content: bytes, random: Random) -> bytes:
    asked["inputs"][0] |= {"parameters": {}, "shape": [1, *CUT], "data": random.choice(BLOWN)}
    return b""


def _unserved(asked: dict[str, Any], content: bytes, random: Random) -> None:
    where = random.choice([asked["parameters"], asked["inputs"][0]["parameters"], asked["outputs"][0]["parameters"]])
    where[random.choice(["classification", "class_count", "sequence_id", "shared_memory_region", "x" * 999])] = 2


def _in_two_ways(asked: dict[str, Any], content: bytes, random: Random) -> None:
    asked["inputs"][0]["data"] = [0.5] * random.choice([1, ROW // 4])


def _twice(scene: Scene, random: Random) -> tuple[bytes, ...]:
    asked, content = good(scene, random)
    text = json.dumps(asked)
    key = random.choice(["inputs", "parameters", "shape", "datatype", "contract"])
    return sent(scene, text.replace(f'"{key}":', f'"{key}": null, "{key}":', 1).encode(), content)


def _other_contract(asked: dict[str, Any], content: bytes, random: Random) -> None:
    asked["parameters"]["contract"] = random.choice([random.randbytes(16).hex(), "", 7, [], {}])


def _no_shape(random: Random) -> object:
    return random.choice(["1", None, [1.0, *CUT], [True, *CUT], {}])


def _torn_json(scene: Scene, random: Random) -> tuple[bytes, ...]:
    text = json.dumps(good(scene, random)[0]).encode()
    return sent(scene, random.choice([text[: random.randint(1, len(text) - 1)], b"[" * 60_000, b"nul", b'{"a":}']))


def _bad_utf8(scene: Scene, random: Random) -> tuple[bytes, ...]:
    bad = random.choice([b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"])
    return sent(scene, b'{"id": "' + bad + b'", "inputs": []}')


def _lying_head(scene: Scene, random: Random) -> tuple[bytes, ...]:
    asked, content = good(scene, random)
    text = json.dumps(asked).encode()
    lie = random.choice(
        ["-1", "0", "1", str(len(text) - 1), str(len(text) + 4), str(2**63), "9" * 400, "x", "1e3", "0x10"]
    )
    return sent(scene, text, content, Inference_Header_Content_Length=lie)


def line(make: Callable[[Scene, Random], tuple[bytes, ...]], then: str = "wait") -> Line:
    """Over the HTTP port."""
    return Line(1, make, statuses, then)


def kind(name: str, make: Callable[[Scene, Random], tuple[bytes, ...]], *expected: str) -> Kind:
    """One that waits for the end."""
    return Kind(f"HTTP: {name}", line(make), frozenset(expected))


KINDS = (
    kind("wrong number of bytes", changed(_resized), "400"),
    kind("negative or huge axes", put("shape", lambda r: [integer(r), *(random_axis(r) for _ in CUT)]), "400"),
    kind("shape is no list of integers", put("shape", _no_shape), "400"),
    kind("claims 2^20 rows and more, tiny body", changed(_claimed), "400"),
    kind("binary_data_size lies", changed(_said_size), "400"),
    kind("bad UTF-8", _bad_utf8, "400"),
    kind("bad JSON", _torn_json, "400"),
    kind("Inference-Header-Content-Length lies", _lying_head, "400"),
    kind("NaN or infinity", changed(_unfinished), "400"),
    kind("numbers in JSON of wrong type or count", changed(_as_numbers), "400"),
    kind("wrong datatype", put("datatype", lambda r: r.choice(["UINT8", "FP16", "BYTES", "", 4, None])), "400"),
    kind("wrong input name", put("name", lambda r: r.choice(["x", "", 7, None, ["z"], "z" * 9999])), "400"),
    kind("wrong contract", changed(_other_contract), "400"),
    kind("packed bomb", changed(_bomb), "400"),
    kind("values that blow up", changed(_blown), "400"),
    kind("parameters that are not served", changed(_unserved), "400"),
    kind("content and values beside it", changed(_in_two_ways), "400"),
    kind("a key twice", _twice, "400"),
)
