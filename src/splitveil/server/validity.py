"""From when until when certificates hold: refused outside of it, and a word in time before they end."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from splitveil.core.errors import InputError, MissingExtraError

AHEAD = timedelta(days=14)
"""Before the end of a certificate, from when on the log says so."""


@dataclass(frozen=True, slots=True)
class Term:
    """One certificate's time.

    Attributes:
        path: file that it stands in.
        owner: whose it is, as the certificate says.
        since: from when it holds.
        until: last moment.
    """

    path: Path
    owner: str
    since: datetime
    until: datetime

    def wrong(self, now: datetime) -> str:
        """Why it does not hold now; empty where it does."""
        if now > self.until:
            return f"expired on {_written(self.until)}"
        return f"is not valid before {_written(self.since)}" if now < self.since else ""

    def reminder(self, now: datetime) -> str:
        """What to say of its end, if that is near or past; else empty."""
        if now > self.until:
            return f"the certificate of {self.owner} in {self.path} expired on {_written(self.until)}: renew it now"
        if self.until - now > AHEAD:
            return ""
        left = (self.until - now) / timedelta(days=1)
        return (
            f"the certificate of {self.owner} in {self.path} expires in {left:.1f} days, on {_written(self.until)}: "
            "renew it and send SIGHUP"
        )


def read_terms(path: Path) -> tuple[Term, ...]:
    """Of every certificate in a PEM file, in its order.

    Raises:
        InputError: it holds none, or one that cannot be read.
        MissingExtraError: cryptography is not installed.
    """
    try:
        from cryptography import x509
    except ModuleNotFoundError:
        raise MissingExtraError("TLS needs cryptography; pip install 'splitveil[serve]'.") from None
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError:
        raise InputError(f"{path} holds something else than certificates; give PEM files.") from None
    return tuple(
        Term(path, c.subject.rfc4514_string() or "no name", c.not_valid_before_utc, c.not_valid_after_utc)
        for c in found
    )


def check_served(terms: Sequence[Term], now: datetime) -> None:
    """The server's own certificate and those between it and its authority.

    Raises:
        InputError: one of them does not hold now, and no client would believe it.
    """
    for term in terms:
        if why := term.wrong(now):
            raise InputError(
                f"the certificate of {term.owner} in {term.path} {why}, and it is {_written(now)} now; give one that "
                "is valid."
            )


def check_authorities(terms: Sequence[Term], now: datetime) -> tuple[Term, ...]:
    """Those of the clients' authorities that hold.

    Raises:
        InputError: none does, and no client could come in.
    """
    valid = tuple(term for term in terms if not term.wrong(now))
    if not valid:
        whys = "; ".join(f"{term.owner} {term.wrong(now)}" for term in terms)
        raise InputError(f"no authority in {terms[0].path} is valid ({whys}); give one that is.")
    return valid


def utc_now() -> datetime:
    """The time by the system's clock."""
    return datetime.now(UTC)


def _written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
