"""Progress of long work, shown by whoever listens: silent in a library, a bar with an ETA on the command line."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Show(Protocol):
    """Called with the steps done so far and a short note."""

    def __call__(self, done: int, note: str = "") -> None:
        """Show it."""
        ...


class Reporter(Protocol):
    """Something that shows progress."""

    def task(self, what: str, total: int) -> Show:
        """Begin a task of `total` steps; the answer is called with the steps done so far and a short note."""
        ...

    def done(self, what: str, *, ended: bool = True) -> None:
        """End the task; `ended` is False where it broke off."""
        ...


def _silent(done: int, note: str = "") -> None:
    """Nobody listens."""


_reporter: ContextVar[Reporter | None] = ContextVar("reporter", default=None)


@contextmanager
def reporting(reporter: Reporter) -> Iterator[None]:
    """Show progress of everything inside through `reporter`."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)


@contextmanager
def unreported() -> Iterator[None]:
    """Nobody sees the progress of what is inside; whoever showed it before does so again afterwards."""
    token = _reporter.set(None)
    try:
        yield
    finally:
        _reporter.reset(token)


@contextmanager
def task(what: str, total: int) -> Iterator[Show]:
    """Tell of long work while inside: ``with task("decoder at layer1", 600) as show: show(1)``."""
    reporter = _reporter.get()
    if reporter is None:
        yield _silent
        return
    show = reporter.task(what, total)
    try:
        yield show
    except BaseException:
        reporter.done(what, ended=False)
        raise
    reporter.done(what)
