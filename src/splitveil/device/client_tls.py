"""The device's end of TLS: whom it trusts and what it shows."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from splitveil.core.errors import InputError
from splitveil.wire.credentials import read_credential


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Files for an encrypted connection, all PEM.

    Args:
        ca: certificates that the server's must go back to; None for those that gRPC brings along.
        cert: the device's own, for servers that ask for one (mutual TLS); with `key`.
        key: the private key of `cert`, unencrypted.
        name: on the server's certificate, where that is not the host that was asked for.

    Raises:
        InputError: `cert` without `key` or the other way round.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise InputError("expected a certificate and its key, got one of them; give both for mutual TLS.")

    def credentials(self) -> grpc.ChannelCredentials:
        """For a gRPC channel.

        Raises:
            InputError: a file that cannot be read, or is not what it should be.
        """
        ca, key, cert = (_content(p) for p in (self.ca, self.key, self.cert))
        self.context()
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)

    def context(self) -> ssl.SSLContext:
        """The same for the standard library, which says what is wrong with a file; gRPC fails at the first call only.

        Raises:
            InputError: a file that is not PEM, or a key that is not its certificate's.
        """
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.ca is None:
                made.load_default_certs()
            else:
                made.load_verify_locations(self.ca)
        except ssl.SSLError:
            raise InputError(f"{self.ca} holds no certificate; give --ca the authority's, as PEM.") from None
        if self.cert is not None and self.key is not None:
            try:
                made.load_cert_chain(self.cert, self.key, password=lambda: b"")
            except ssl.SSLError as error:
                reason = (error.reason or "not PEM").lower().replace("_", " ")
                raise InputError(
                    f"{self.cert} and {self.key} are no pair ({reason}); "
                    "give --cert a certificate and --key its own unencrypted key, both PEM."
                ) from None
        return made


def _content(path: Path | None) -> bytes | None:
    return None if path is None else read_credential(path, "--ca, --cert and --key")
