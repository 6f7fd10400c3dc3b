"""Pictures that cannot be read: all of them named at once, or left out and counted."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from splitveil.core.errors import DataError
from splitveil.wire.pictures.opening import BrokenPictureError

NAMED = 20
"""Of many broken pictures, how many are named."""


class Faults:
    """Broken pictures as they turn up, each once."""

    def __init__(self) -> None:
        self.found: dict[Path, str] = {}

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Go on after a picture that cannot be read."""
        try:
            yield
        except BrokenPictureError as error:
            self.found[error.path] = error.reason

    def settle(self, name: str, total: int, *, skip: bool) -> tuple[str, ...]:
        """What was left out of the `total` pictures of `name`, one phrase each.

        Raises:
            DataError: any was broken and none are to be skipped, or there is no whole one.
        """
        phrases = tuple(f"{path} ({reason})" for path, reason in self.found.items())
        if not phrases or (skip and len(phrases) < total):
            return phrases
        if len(phrases) == 1 < total:
            path, reason = next(iter(self.found.items()))
            raise DataError(f"{BrokenPictureError(path, reason)} --skip-broken goes on without it.")
        remedy = "; mend or remove them" + (", or go on without with --skip-broken." if len(phrases) < total else ".")
        raise DataError(f"cannot read {len(phrases):,} of the {total:,} pictures of {name}: {_short(phrases)}{remedy}")


def skipped_words(phrases: Sequence[str], total: int) -> str:
    """One sentence about broken pictures that were left out of `total`."""
    return f"{len(phrases):,} of {total:,} pictures cannot be read and are left out: {_short(phrases)}"


def _short(phrases: Sequence[str]) -> str:
    more = f" and {len(phrases) - NAMED:,} more" if len(phrases) > NAMED else ""
    return ", ".join(phrases[:NAMED]) + more
