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
    return (request.replace(b"Host: localhost\r\n", b"Host: localhost\r\n" + more.encode() + b"\r\n", 1),)


def _no_length(scene: Scene, random: Random) -> tuple[bytes, ...]:
    return sent(scene, b"{}", Content_Length=random.choice(["-1", "1e9", "0x10", "9" * 30, "two"]))


def _bad_head(scene: Scene, random: Random) -> tuple[bytes, ...]:
    bad = random.choice([b"X\0Y: 1", b"no colon", b"X: a\0b", b": empty", b"\xff\xfe: 1"])
    return (sent(scene, b"{}")[0].replace(b"Host: localhost\r\n", b"Host: localhost\r\n" + bad + b"\r\n", 1),)


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


def _two_tokens(scene: Scene, random: Random) -> tuple[bytes, ...]:
    asked, content = good(scene, random)
    more = b"Authorization: Bearer " + b"0" * 64 + b"\r\n"
    request = sent(scene, json.dumps(asked).encode(), content)[0]
    at = request.index(b"Authorization") if random.random() < 0.5 else request.index(b"\r\n\r\n") + 2
    return (request[:at] + more + request[at:],)


def _behind(field: Callable[[Scene, Random], bytes]) -> Callable[[Scene, Random], tuple[bytes, ...]]:
    """A good request in one chunk with fields behind it, in one piece or with its end by itself."""

    def make(scene: Scene, random: Random) -> tuple[bytes, ...]:
        asked, content = good(scene, random)
        text = json.dumps(asked).encode()
        told = {**END, "Transfer-Encoding": "chunked", "Inference_Header_Content_Length": str(len(text))}
        start = http_request(b"", b"", None, **told).replace(b"Content-Length: 0\r\n", b"", 1)
        body = text + content
        whole = start + b"%x\r\n" % len(body) + body + b"\r\n0\r\n" + field(scene, random) + b"\r\n\r\n"
        cut = random.choice([0, 1, 40])
        return (whole[:-cut], whole[-cut:]) if cut else (whole,)

    return make


def _long_field(scene: Scene, random: Random) -> bytes:
    return b"X-Behind: " + b"y" * 100_000


def _elsewhere_told(scene: Scene, random: Random) -> tuple[bytes, ...]:
    path = random.choice(["/v2/health/live/", "/v2/", "/v2/models/exact/"])
    return (http_request(b"", b"", scene.token, path, **{**END, "Host": "evil.example"}).replace(b"POST", b"GET", 1),)


def _absolute(scene: Scene, random: Random) -> tuple[bytes, ...]:
    asked, content = good(scene, random)
    path = "http://evil.example/v2/models/exact/infer"
    return (http_request(json.dumps(asked).encode(), content, scene.token, path, **END),)


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
    kind("two tokens", _two_tokens, "401"),
    kind("token behind the body", _behind(lambda s, r: f"Authorization: Bearer {s.token}".encode()), "401"),
    kind("100 kB behind the body", _behind(_long_field), "400", "401"),
    kind("path with a stroke too many, another Host", _elsewhere_told, "404"),
    kind("target that names another place", _absolute, "400"),
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
