"""Writing what was found: results first, and whatever fails after them costs none."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from splitveil.core.errors import InputError, SplitVeilError, WriteError


def claim(folder: Path, *, resume: bool) -> None:
    """Make sure, before any work, that results may be written there.

    Raises:
        InputError: a file, a folder that cannot be written, or one that is not empty while not resuming.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"expected a folder for the results, got the file {folder}; give another --out.")
    if folder.exists() and any(folder.iterdir()) and not resume:
        raise InputError(f"{folder} is not empty; go on with --resume or give another --out.")
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    # Tried, not asked: permission bits say nothing of a full disk or of one that is mounted to be read only.
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b" ")
            file.flush()
    except OSError as error:
        raise InputError(f"cannot write to {there} ({error.strerror}); give another --out.") from None


@contextmanager
def resumable(folder: Path | str | None) -> Iterator[None]:
    """Work whose finished parts lie in `folder`: what cannot be written ends it with the way to go on.

    Raises:
        WriteError: instead of any OSError inside.
    """
    try:
        yield
    except OSError as error:
        if folder is None:
            raise
        where = f" {error.filename}" if error.filename else ""
        raise WriteError(
            f"cannot read or write{where} ({error.strerror or error}); what was finished is in {folder}: make room, "
            "and go on with --resume."
        ) from error


class Finishing:
    """What is written once the results are on the disk: each part is tried, and what failed is told at the end.

    Args:
        kept: what is there by then: ``out/card.json``.
        remedy: how to go on, after "mend that and".
    """

    def __init__(self, kept: str, remedy: str) -> None:
        self.kept, self.remedy = kept, remedy
        self._failed: list[tuple[str, Exception]] = []

    @contextmanager
    def writing(self, what: str | Path) -> Iterator[None]:
        """Whatever goes wrong inside is kept for `tell`: a picture or a template may raise anything."""
        try:
            yield
        except Exception as error:  # told, never dropped
            self._failed.append((str(what), error))

    def tell(self) -> None:
        """Say what could not be written.

        Raises:
            WriteError: where anything failed.
        """
        if self._failed:
            told = ", ".join(f"{what} ({_reason(error)})" for what, error in self._failed)
            raise WriteError(
                f"could not write {told}; the results are kept in {self.kept}: mend that and {self.remedy}."
            ) from self._failed[0][1]


def _reason(error: Exception) -> str:
    """One phrase; messages on purpose without their remedy, for the sentence has its own."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    text = " ".join(str(error).split())
    return text.partition(";")[0] if isinstance(error, SplitVeilError) else f"{type(error).__name__}: {text}"
