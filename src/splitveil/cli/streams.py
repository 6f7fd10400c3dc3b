"""Standard streams as a command may find them: closed, full, read by nobody, or of an encoding without our signs."""

import errno
import io
import os
import sys
from typing import Any, TextIO

LOST = (errno.EPIPE, errno.EIO)
"""Whoever read has left, or the terminal is gone."""
STDOUT, STDERR = "standard output", "standard error"

_answers: TextIO | None = None


class Patient(io.FileIO):
    """A descriptor whose reader may leave: what is written then is dropped, and the work goes on.

    Args:
        number: the descriptor; stays open when this is closed.
        name: for messages.
        all_errors: drop everything that cannot be written: there is nowhere left to say so.

    Raises:
        OSError: with `name`, once, where the system takes no more (a full disk); from then on all is dropped.
    """

    def __init__(self, number: int, name: str, *, all_errors: bool) -> None:
        super().__init__(number, "wb", closefd=False)
        self._name, self._all = name, all_errors

    def write(self, content: Any, /) -> int:
        """Write, or drop."""
        try:
            return super().write(content) or 0
        except OSError as error:
            # Else the interpreter would try again when it ends, and complain.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if self._all or error.errno in LOST:
                return memoryview(content).nbytes
            raise OSError(error.errno, error.strerror, self._name) from None


def mend_streams() -> None:
    """Open what is closed on the null device; drop what no reader takes; write ``?`` for what an encoding lacks.

    Streams that somebody has replaced (a test, a notebook) stay as they are.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    sys.stdout = _mended(sys.stdout, sys.__stdout__, 1, STDOUT, all_errors=False)
    sys.stderr = _mended(sys.stderr, sys.__stderr__, 2, STDERR, all_errors=True)


def keep_for_json() -> None:
    """Let nothing but `answers` write on stdout from now on: what libraries or a model's file print goes to stderr."""
    global _answers
    if not isinstance(sys.stdout, io.TextIOWrapper) or not isinstance(sys.stdout.buffer.raw, Patient):
        return
    sys.stdout.flush()
    _answers = _opened(Patient(os.dup(1), STDOUT, all_errors=False), sys.stdout, "replace")
    os.dup2(2, 1)
    sys.stdout = sys.stderr


def answers() -> TextIO:
    """Where the one JSON object goes."""
    return _answers or sys.stdout


def _mended(now: TextIO | None, original: TextIO | None, number: int, name: str, *, all_errors: bool) -> TextIO:
    if now is None:
        return open(os.devnull, "w", encoding="utf-8")
    if now is not original or not isinstance(now, io.TextIOWrapper):
        return now
    now.flush()
    return _opened(Patient(number, name, all_errors=all_errors), now, "backslashreplace" if all_errors else "replace")


def _opened(raw: Patient, like: io.TextIOWrapper, errors: str) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=like.encoding, errors=errors, line_buffering=like.line_buffering,
        write_through=like.write_through,
    )  # fmt: skip
