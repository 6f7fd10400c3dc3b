"""Hostile connections over HTTP: heads, lengths, tokens, and lines that are left open, cut or shared."""

import json
from collections.abc import Callable
from random import Random

from tests.faults.asking import http_request
from tests.faults.attempts import CLOSED, LEFT, Dripping, Kind, Scene, junk, statuses
from tests.faults.hostile_http import END, good, kind, line, sent


def _half_head(scene: Scene, random: Random) -> tuple[bytes, ...]:
    return (b"POST /v2/models/exact/infer HTTP/1.1\r\nHost: ",)


def _long_body(scene: Scene, random: Random) -> tuple[bytes, ...]:
    return sent(scene, b"{", Content_Length="9999")


def _two_lengths(scene: Scene, random: Random) -> tuple[bytes, ...]:
    more = random.choice(["Content-Length: 3", "Transfer-Encoding: chunked", "Content-Length: 0"])
    asked, content = good(scene, random)
    request = sent(scene, json.dumps(asked).encode(), content)[0]
    return (request.replace(b"Host: x\r\n", b"Host: x\r\n" + more.encode() + b"\r\n", 1),)


def _no_length(scene: Scene, random: Random) -> tuple[bytes, ...]:
    return sent(scene, b"{}", Content_Length=random.choice(["-1", "1e9", "0x10", "9" * 30, "two"]))


def _bad_head(scene: Scene, random: Random) -> tuple[bytes, ...]:
    bad = random.choice([b"X\0Y: 1", b"no colon", b"X: a\0b", b": empty", b"\xff\xfe: 1"])
    return (sent(scene, b"{}")[0].replace(b"Host: x\r\n", b"Host: x\r\n" + bad + b"\r\n", 1),)


def _oversize(scene: Scene, random: Random) -> tuple[bytes, ...]:
    if random.random() < 0.5:
        return sent(scene, b"{}", Content_Length=str(random.choice([scene.payload + 1, 2**40, 2**62])))
    start = sent(scene, b"", Transfer_Encoding="chunked")[0].replace(b"Content-Length: 0\r\n", b"", 1)
    size = scene.payload + random.randint(1, 4096)
    return (start, b"%x\r\n" % size + bytes(size) + b"\r\n0\r\n\r\n")


def _cut_body(scene: Scene, random: Random) -> tuple[bytes, ...]:
    asked, content = good(scene, random)
    whole = sent(scene, json.dumps(asked).encode(), content)[0]
    start = whole.index(b"\r\n\r\n") + 4
    return (whole[: random.randrange(start, len(whole) - 1)],)


def _pipelined(scene: Scene, random: Random) -> tuple[bytes, ...]:
    asked, content = good(scene, random)
    one = http_request(json.dumps(asked).encode(), content, scene.token)
    return (one + one + b"\x16\x03\x01" + junk(random),)


def _in_one_piece(scene: Scene, random: Random) -> tuple[bytes, ...]:
    asked, content = good(scene, random)
    text = json.dumps(asked).encode()
    return (http_request(text, content, scene.token) + sent(scene, text, content)[0],)


def _flipped(scene: Scene, random: Random) -> tuple[bytes, ...]:
    asked, content = good(scene, random)
    whole = bytearray(sent(scene, json.dumps(asked).encode(), content)[0])
    for _ in range(random.randint(1, 6)):
        whole[random.randrange(len(whole) - len(content))] = random.randrange(256)
    return (bytes(whole),)


def _elsewhere(scene: Scene, random: Random) -> tuple[bytes, ...]:
    path = random.choice(
        ["/v2/models/other/infer", "/../../etc/passwd", "/v2/models/exact/versions/9/infer", "/v2/%00"]
    )
    asked, content = good(scene, random)
    return (http_request(json.dumps(asked).encode(), content, scene.token, path, **END),)


def _shown(token: Callable[[Scene, Random], str | None], scheme: str = "Bearer ") -> Callable[..., tuple[bytes, ...]]:
    def make(scene: Scene, random: Random) -> tuple[bytes, ...]:
        asked, content = good(scene, random)
        shown = token(scene, random)
        headers = END if shown is None else {**END, "Authorization": scheme + shown}
        return (http_request(json.dumps(asked).encode(), content, None, **headers),)

    return make


def _near(scene: Scene, random: Random) -> str:
    at = random.randrange(len(scene.token))
    return scene.token[:at] + chr(33 + (ord(scene.token[at]) - 32) % 90) + scene.token[at + 1 :]


ANY = ("200", "400", "401", "404", "405", "408", "413", "415", CLOSED)
KINDS = (
    kind("other path or model", _elsewhere, "404"),
    kind("two lengths of one body (smuggling)", _two_lengths, "400"),
    kind("Content-Length is no number", _no_length, "400", CLOSED),
    kind("control bytes in the head", _bad_head, "400", CLOSED),
    kind("head of 40 KiB and more", lambda s, r: (b"GET /v2 HTTP/1.1\r\n" + b"X-Long: y\r\n" * 4000,), "400"),
    kind("oversize", _oversize, "413", CLOSED),
    kind("no token", _shown(lambda s, r: None), "401"),
    kind("token off by one character", _shown(_near), "401"),
    kind("token in another scheme", _shown(lambda s, r: s.token, "Basic "), "401"),
    kind("replayed token (revoked)", _shown(lambda s, r: s.revoked), "401"),
    kind("two good requests in one piece", _in_one_piece, "200+200"),
    kind("two good requests, then garbage", _pipelined, "200+200+400", "200+200", "200+400", "400"),
    kind("random bytes", lambda s, r: (junk(r) + b"\r\n\r\n",), "400", CLOSED),
    kind("some bytes of the head changed", _flipped, *ANY),
    Kind("HTTP: body cut short, then end of file", line(_cut_body, "shut"), frozenset({"400", CLOSED})),
    Kind("HTTP: body cut short, then a reset", line(_cut_body, "reset"), frozenset({LEFT})),
    Kind("HTTP: body cut short, line held open", line(_cut_body), frozenset({"408"}), slow=True),
    Kind("HTTP: half a head, line held open", line(_half_head), frozenset({CLOSED}), slow=True),
    Kind("HTTP: silence", line(lambda s, r: ()), frozenset({CLOSED}), slow=True),
    Kind("HTTP: slow-loris in the head", Dripping(_half_head, statuses), frozenset({CLOSED}), slow=True),
    Kind("HTTP: slow-loris in the body", Dripping(_long_body, statuses), frozenset({"408"}), slow=True),
)  # fmt: skip
