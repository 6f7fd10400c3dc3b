"""Why a call failed, seen from its address: TLS or plain text, gRPC or HTTP, a certificate that does not hold.

gRPC tells its callers little of a handshake that failed ("Socket closed"), so that a device looks once for itself, by
the standard library. It sends nothing but what begins a connection: no token, no features.
"""

import socket
import ssl
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""Begins HTTP/2 with empty settings (RFC 9113, section 3.4)."""
SETTINGS = 4
"""Type of the frame that answers it."""
HTTP2, HTTP1, TLS, SILENT = "gRPC", "HTTP", "TLS", ""
EARLY, LATE, UNKNOWN, OTHER_NAME = (9,), (10,), (2, 18, 19, 20, 21), (62, 63, 64)
"""Codes of OpenSSL for why a certificate does not hold."""
HANDSHAKE, ALERT = b"\x16\x03", b"\x15\x03"


def seen_at(host: str, port: int, tls: ssl.SSLContext | None, name: str | None, seconds: float) -> str:
    """Why a call to this address may have failed and what to do, in words; empty where nothing seems wrong.

    Args:
        host: of the server.
        port: of the server.
        tls: what the call was made with; None for plain text.
        name: expected on the certificate; None for the host.
        seconds: to take at most.
    """
    until = time.monotonic() + seconds
    try:
        if tls is None:
            return _seen_in_plain(host, port, until)
        return _seen_with_tls(host, port, tls, name, until)
    except socket.gaierror:
        return f"the name {host} cannot be looked up; check it"
    except ConnectionRefusedError:
        return "nothing listens there; check the address and that `splitveil serve` runs"
    except OSError:
        return ""


def _seen_in_plain(host: str, port: int, until: float) -> str:
    with _connected(host, port, until) as plain:
        spoken = _spoken(plain)
    if spoken == SILENT:
        # gRPC's TLS server hangs up without a word: ask whether it takes a handshake.
        anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
        try:
            with _connected(host, port, until) as plain, anyone.wrap_socket(plain):
                spoken = TLS
        except OSError:
            return ""
    if spoken == TLS:
        return "it speaks TLS and was asked in plain text; give its authority with --ca FILE, or --tls for a known one"
    return _said_of_http(spoken)


def _seen_with_tls(host: str, port: int, tls: ssl.SSLContext, name: str | None, until: float) -> str:
    tls.set_alpn_protocols(["h2"])
    try:
        with (
            _connected(host, port, until) as plain,
            tls.wrap_socket(plain, server_hostname=name or host) as secured,
        ):
            return _seen_inside(secured)
    except ssl.SSLCertVerificationError as error:
        return _distrusted(error, name or host)
    except ssl.SSLError as error:
        if "ALERT" in (error.reason or ""):
            return f"it refuses this device's TLS ({_words(error)}); give --cert and --key that its authority signed"
        with _connected(host, port, until) as plain:
            spoken = _spoken(plain)
        if spoken == HTTP2:
            return "it speaks plain text and was asked with TLS; leave --ca and --tls out, or serve with --tls-cert"
        return _said_of_http(spoken)


def _seen_inside(secured: ssl.SSLSocket) -> str:
    """After a handshake that held: under TLS 1.3 a server judges the device's certificate only now."""
    try:
        spoken = _spoken(secured)
    except ssl.SSLError as error:
        return (
            f"it does not take this device's certificate or the lack of one ({_words(error)}); give --cert and --key "
            "that its authority signed"
        )
    if secured.selected_alpn_protocol() != "h2":
        spoken = HTTP1
    if spoken == SILENT:
        return (
            "it hangs up after the handshake, as servers do that want another certificate of the device or one at all; "
            "give --cert and --key that its authority signed"
        )
    return _said_of_http(spoken)


def _said_of_http(spoken: str) -> str:
    return "it speaks HTTP and no gRPC; give the port of gRPC, which `splitveil serve` tells" * (spoken == HTTP1)


def _distrusted(error: ssl.SSLCertVerificationError, name: str) -> str:
    code = error.verify_code
    if code in LATE:
        return "its certificate has expired; ask its operator for a new one"
    if code in EARLY:
        return "its certificate is not valid yet; check the clocks of both machines"
    if code in OTHER_NAME:
        return f"its certificate is not of {name}; give the name that it holds with --server-name"
    if code in UNKNOWN:
        return "its certificate is of an authority that this device does not trust; give that one's with --ca FILE"
    return f"its certificate does not hold ({error.verify_message}); ask its operator"


def _words(error: ssl.SSLError) -> str:
    return (error.reason or "no reason").lower().replace("_", " ")


def _connected(host: str, port: int, until: float) -> socket.socket:
    return socket.create_connection((host, port), timeout=max(0.05, until - time.monotonic()))


def _spoken(connection: socket.socket) -> str:
    """What the other side answers to the beginning of HTTP/2."""
    try:
        connection.sendall(PREFACE)
        first = b""
        while len(first) < 9 and (more := connection.recv(64)):
            first += more
    except ssl.SSLError:
        raise
    except OSError:
        return SILENT
    if first.startswith((b"HTTP/", b"<")):  # HTTP/0.9 had pages alone, and some still answer so
        return HTTP1
    if first.startswith((HANDSHAKE, ALERT)):
        return TLS
    return HTTP2 if len(first) >= 9 and first[3] == SETTINGS else SILENT
