"""Who may talk to a server: certificates, bearer tokens, and which addresses need them."""

import hashlib
import hmac
import ipaddress
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc

from splitveil.core.errors import InputError
from splitveil.server.validity import Term, check_authorities, check_served, read_terms, utc_now
from splitveil.wire.credentials import read_credential

SHORTEST = 16
"""Characters of a token; fewer can be guessed."""
BEARER = "bearer "
DAY = timedelta(days=1)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates in PEM files.

    Args:
        certificate: the server's, followed by those between it and its authority.
        key: the server's private key, without a passphrase.
        client_ca: authority whose certificates clients must show; None asks for none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For HTTP: TLS 1.2 or later.

        Raises:
            InputError: a file cannot be read or everybody may write to it, key and certificate are no pair, or a
                certificate is not valid now.
        """
        for path in filter(None, (self.certificate, self.key, self.client_ca)):
            read_credential(path, "--tls-cert, --tls-key, --client-ca")
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.set_alpn_protocols(["http/1.1"])
        try:
            made.load_cert_chain(self.certificate, self.key, password=_no_passphrase)
            if self.client_ca is not None:
                made.load_verify_locations(self.client_ca)
                made.verify_mode = ssl.CERT_REQUIRED
        except ssl.SSLError as error:
            if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
                raise InputError(
                    f"{self.key} is not the key of the first certificate in {self.certificate}; give its own key, and "
                    "in a chain the server's certificate first."
                ) from None
            raise InputError(
                f"{self.certificate}, {self.key} and the client CA do not make TLS ({error.reason or 'not PEM'}); give "
                "a certificate, its own unencrypted key and an authority, all PEM."
            ) from None
        except OSError as error:
            raise InputError(
                f"cannot read a TLS file: {error.strerror}; check --tls-cert, --tls-key, --client-ca."
            ) from None
        self.terms(utc_now())
        return made

    def terms(self, now: datetime) -> dict[str, Term]:
        """``server`` and, with mutual TLS, ``client_ca`` -> the certificate among them that ends first.

        Of several authorities of clients, those that hold count: the others let nobody in.

        Raises:
            InputError: a certificate of the server, or every one of the authorities, is not valid now.
            MissingExtraError: cryptography is not installed.
        """
        served = read_terms(self.certificate)
        check_served(served, now)
        found = {"server": min(served, key=lambda term: term.until)}
        if self.client_ca is not None:
            authorities = check_authorities(read_terms(self.client_ca), now)
            found["client_ca"] = min(authorities, key=lambda term: term.until)
        return found

    def configuration(self) -> Any:
        """The same for gRPC, from files that `context` has found right."""
        ca = self.client_ca.read_bytes() if self.client_ca else None
        return grpc.ssl_server_certificate_configuration([(self.key.read_bytes(), self.certificate.read_bytes())], ca)


class Certificates:
    """What both protocols show and ask for in a handshake; connections that are there keep what they began with.

    Args:
        tls: the files.
        clock: the time, for when they end.

    Raises:
        InputError: as `Tls.context` says.
    """

    def __init__(self, tls: Tls, clock: Callable[[], datetime] = utc_now) -> None:
        self._tls, self._clock = tls, clock
        self.context = tls.context()
        """For a connection over HTTP that begins now."""
        self._terms = tls.terms(clock())
        self._reminded: datetime | None = None
        self._told = self._latest = tls.configuration()
        self._shut = False

    @property
    def lapsed(self) -> bool:
        """Whether nobody is to be let in: the server's certificate has ended, or whom to trust cannot be read."""
        return self._shut or self._clock() > self._terms["server"].until

    def grpc_credentials(self) -> Any:
        """For a secure port of gRPC."""
        mutual = self._tls.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(self._latest, self._changed, require_client_authentication=mutual)

    def reload(self) -> None:
        """Read the files anew; if they make no TLS, the old ones stay.

        With mutual TLS nobody is then let in until they do: which clients to trust is not known.

        Raises:
            InputError: as `Tls.context` says.
        """
        self._shut = self._tls.client_ca is not None
        fresh, terms = self._tls.context(), self._tls.terms(self._clock())
        self._latest = self._tls.configuration()
        self.context, self._terms, self._reminded, self._shut = fresh, terms, None, False
        self.remind()

    def seconds_left(self) -> dict[str, float]:
        """``server`` and ``client_ca``, see `Tls.terms` -> seconds until the first certificate ends; negative after."""
        now = self._clock()
        return {name: (term.until - now).total_seconds() for name, term in self._terms.items()}

    def remind(self) -> None:
        """Say in the log which certificates end soon, once a day."""
        now = self._clock()
        if self._reminded is not None and now - self._reminded < DAY:
            return
        self._reminded = now
        for term in self._terms.values():
            if said := term.reminder(now):
                log.warning("%s", said)

    def _changed(self) -> Any:
        """Asked by gRPC at each handshake; None for no change."""
        if self._told is self._latest:
            return None
        self._told = self._latest
        return self._told


class Tokens:
    """Bearer tokens from a file, one a line; empty lines and lines that start with # are left out.

    Only their hashes stay in memory; each is compared in constant time, and with all of them.

    Args:
        path: the file.

    Raises:
        InputError: it cannot be read, everybody may write to it, it holds none, or one that is too short.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: tuple[bytes, ...] = ()
        self.reload()

    def __repr__(self) -> str:
        return f"Tokens({str(self._path)!r}, {len(self._known)} known)"

    def reload(self) -> None:
        """Read the file anew; if that fails, nobody is let in until it can be read: the file is the truth.

        Raises:
            InputError: as the class says.
        """
        self._known = ()
        try:
            lines = [line.strip() for line in read_credential(self._path, "--token-file").decode("ascii").split("\n")]
        except UnicodeDecodeError:
            raise InputError(f"{self._path} holds more than ASCII; write one token of plain letters a line.") from None
        tokens = [line for line in lines if line and not line.startswith("#")]
        if not all(token.isprintable() for token in tokens):
            raise InputError(f"{self._path} holds control characters; write one token of plain letters a line.")
        if not tokens or any(len(token) < SHORTEST for token in tokens):
            raise InputError(
                f"{self._path} holds {'a short token' if tokens else 'no token'}, expected lines of {SHORTEST} "
                "characters or more; make one with `openssl rand -hex 32`."
            )
        self._known = tuple(hashlib.sha256(token.encode()).digest() for token in tokens)

    def allow(self, header: str | None) -> bool:
        """Whether an ``Authorization`` header is ``Bearer`` and one of the tokens."""
        if header is None or header[: len(BEARER)].lower() != BEARER:
            return False
        shown = hashlib.sha256(header[len(BEARER) :].strip().encode("utf-8", "surrogateescape")).digest()
        found = False
        for known in self._known:
            found |= hmac.compare_digest(shown, known)
        return found


def refuse_exposure(host: str, tls: Tls | None, tokens: Tokens | None, insecure: bool) -> None:
    """Make sure that a server that others can reach asks who they are, and that nobody reads along.

    Raises:
        InputError: `host` is not loopback and TLS, or both tokens and a client authority, are missing.
    """
    if insecure or is_loopback(host):
        return
    missing = [] if tls else ["--tls-cert and --tls-key"]
    if tokens is None and (tls is None or tls.client_ca is None):
        missing.append("--token-file or --client-ca")
    if missing:
        raise InputError(
            f"{host} can be reached from outside; give {' and '.join(missing)}, use 127.0.0.1, or force it "
            "with --insecure."
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def is_home(host: str) -> bool:
    """Whether a ``Host`` header names this machine as only those on it do: ``localhost`` or a loopback number."""
    name, colon, port = host.rpartition(":")
    if colon and port.isascii() and port.isdigit() and not name.endswith(":"):
        host = name
    return host.startswith("[") == host.endswith("]") and is_loopback(host.lower())


def _no_passphrase() -> bytes:
    """Never ask on the terminal."""
    return b""
