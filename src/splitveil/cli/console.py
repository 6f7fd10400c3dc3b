"""What the commands share: tables on stdout, progress with an ETA on stderr, JSON when asked for."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
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

from splitveil.cli import streams
from splitveil.cli.lines import Lines, watched
from splitveil.core.printing import printable as printable
from splitveil.core.progress import Show, reporting

WIDE = 200
"""Columns where stdout is a file or a pipe: a table is for grep then, not for a screen."""

# Names such as chain:of=[noise + dropout] are no markup, nor any part of them an emoji.
out = Console(width=None if sys.stdout.isatty() else WIDE, markup=False, emoji=False)
err = Console(stderr=True, markup=False, emoji=False)


SHOWN = 3
"""Rows named with a reason that they share."""


def tell(remarks: Iterable[str]) -> None:
    """One line each on stderr for what a user should know of the images or weights just read."""
    for remark in dict.fromkeys(remarks):
        err.print(f"note: {remark}", style="yellow", highlight=False, soft_wrap=True, markup=False)


def tell_doubts(reasons: Iterable[str]) -> None:
    """One line on stderr for each reason not to trust, with what it is of: ``of: title: detail``, as cards say it."""
    found: dict[str, dict[str, None]] = {}
    for reason in reasons:
        *of, title, detail = ("", *reason.split(": "))
        found.setdefault(f"{title}: {detail}" if title else detail, {})[": ".join(of[1:])] = None
    for why, rows in found.items():
        named = ", ".join(filter(None, [*rows][:SHOWN]))
        more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        said = f"{named}{more}: {why}" if named else why
        err.print(f"do not trust: {said}", style="red", highlight=False, soft_wrap=True)


class ProgressBars:
    """Progress bars with elapsed time and ETA."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.tasks = progress, list[tuple[str, TaskID]]()

    def task(self, what: str, total: int) -> Show:
        """Show a bar for `what`."""
        bar = self.progress.add_task(what, total=total, note="")
        self.tasks.append((what, bar))

        def show(done: int, note: str = "") -> None:
            self.progress.update(bar, completed=done, note=note)

        return show

    def done(self, what: str, *, ended: bool = True) -> None:
        """Take the bar away, the last one of that name."""
        at = next(i for i in reversed(range(len(self.tasks))) if self.tasks[i][0] == what)
        self.progress.remove_task(self.tasks.pop(at)[1])


@contextmanager
def showing_progress() -> Iterator[None]:
    """Bars on stderr while inside; lines where stderr is not a terminal."""
    if not sys.stderr.isatty():
        lines = Lines()
        with reporting(lines), watched(lines):
            yield
        return
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("eta"), TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=err, transient=True) as progress, reporting(ProgressBars(progress)):
        yield


def print_json(text: str) -> None:
    """One JSON object on stdout, in ASCII: it reads alike whatever the encoding of the terminal or the pipe."""
    print("".join(c if c.isascii() else json.dumps(c)[1:-1] for c in text), file=streams.answers(), flush=True)


def show_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Print a table; the first `left` columns are words, the others numbers."""
    if title:
        out.print(title, style="table.title", highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for i, header in enumerate(headers):
        table.add_column(header, justify="left" if i < left else "right", overflow="fold", no_wrap=i == 0 or i >= left)
    for row in rows:
        table.add_row(*row)
    out.print(table)
