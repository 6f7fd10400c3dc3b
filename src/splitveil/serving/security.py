"""Who may talk to a server: certificates, bearer tokens, and which addresses need them."""

import hashlib
import hmac
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from splitveil.errors import InputError

SHORTEST = 16
"""Characters of a token; fewer can be guessed."""
BEARER = "bearer "


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
            InputError: a file cannot be read, or key and certificate are no pair.
        """
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.set_alpn_protocols(["http/1.1"])
        try:
            made.load_cert_chain(self.certificate, self.key, password=_no_passphrase)
            if self.client_ca is not None:
                made.load_verify_locations(self.client_ca)
                made.verify_mode = ssl.CERT_REQUIRED
        except ssl.SSLError as error:
            raise InputError(
                f"{self.certificate}, {self.key} and the client CA do not make TLS ({error.reason or 'not PEM'}); give "
                "a certificate, its own unencrypted key and an authority, all PEM."
            ) from None
        except OSError as error:
            raise InputError(
                f"cannot read a TLS file: {error.strerror}; check --tls-cert, --tls-key, --client-ca."
            ) from None
        return made

    def configuration(self) -> Any:
        """The same for gRPC, from files that `context` has found right."""
        ca = self.client_ca.read_bytes() if self.client_ca else None
        return grpc.ssl_server_certificate_configuration([(self.key.read_bytes(), self.certificate.read_bytes())], ca)


class Certificates:
    """What both protocols show and ask for in a handshake; connections that are there keep what they began with.

    Args:
        tls: the files.

    Raises:
        InputError: as `Tls.context` says.
    """

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self.context = tls.context()
        self._told = self._latest = tls.configuration()

    def grpc_credentials(self) -> Any:
        """For a secure port of gRPC."""
        mutual = self._tls.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(self._latest, self._changed, require_client_authentication=mutual)

    def reload(self) -> None:
        """Read the files anew; if they make no TLS, the old ones stay.

        HTTP goes on to trust the authority that it trusted before, beside the new one: to drop one, restart.

        Raises:
            InputError: as `Tls.context` says.
        """
        self._tls.context()
        self.context.load_cert_chain(self._tls.certificate, self._tls.key, password=_no_passphrase)
        if self._tls.client_ca is not None:
            self.context.load_verify_locations(self._tls.client_ca)
        self._latest = self._tls.configuration()

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
        InputError: it cannot be read, holds none, or holds one that is too short.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: tuple[bytes, ...] = ()
        self.reload()

    def __repr__(self) -> str:
        return f"Tokens({str(self._path)!r}, {len(self._known)} known)"

    def reload(self) -> None:
        """Read the file anew; if that fails, the old tokens stay.

        Raises:
            InputError: as the class says.
        """
        try:
            lines = [line.strip() for line in self._path.read_text("ascii").splitlines()]
        except OSError as error:
            raise InputError(f"cannot read {self._path}: {error.strerror}; check --token-file.") from None
        except UnicodeDecodeError:
            raise InputError(f"{self._path} holds more than ASCII; write one token of plain letters a line.") from None
        tokens = [line for line in lines if line and not line.startswith("#")]
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


def _no_passphrase() -> bytes:
    """Never ask on the terminal."""
    return b""
