"""What the commands share: tables on stdout, progress with an ETA on stderr, JSON when asked for."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from splitveil.progress import Show, reporting

WIDE = 200
"""Columns where stdout is a file or a pipe: a table is for grep then, not for a screen."""

out = Console() if sys.stdout.isatty() else Console(width=WIDE)
err = Console(stderr=True)


class Bars:
    """Progress bars with elapsed time and ETA."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.tasks = progress, dict[str, TaskID]()

    def task(self, what: str, total: int) -> Show:
        """Show a bar for `what`."""
        bar = self.tasks[what] = self.progress.add_task(what, total=total, note="")

        def show(done: int, note: str = "") -> None:
            self.progress.update(bar, completed=done, note=note)

        return show

    def done(self, what: str) -> None:
        """Take the bar away."""
        self.progress.remove_task(self.tasks.pop(what))


class Lines:
    """One line on stderr for each finished task, for logs."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}

    def task(self, what: str, total: int) -> Show:
        """Note the time."""
        self.begun[what] = time.perf_counter()

        def show(done: int, note: str = "") -> None:
            """Say nothing until it is done."""

        return show

    def done(self, what: str) -> None:
        """Say how long it took."""
        print(f"{what}: {time.perf_counter() - self.begun.pop(what):.1f} s", file=sys.stderr, flush=True)


@contextmanager
def showing_progress() -> Iterator[None]:
    """Bars on stderr while inside; a line for each finished task where stderr is not a terminal."""
    if not sys.stderr.isatty():
        with reporting(Lines()):
            yield
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("eta"),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=err, transient=True) as progress, reporting(Bars(progress)):
        yield


def show_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Print a table; the first `left` columns are words, the others numbers."""
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for i, header in enumerate(headers):
        table.add_column(header, justify="left" if i < left else "right", overflow="fold", no_wrap=i == 0 or i >= left)
    for row in rows:
        table.add_row(*map(escape, row))
    out.print(table)
