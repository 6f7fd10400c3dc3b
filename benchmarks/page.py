"""A page of docs/results: its text, the archive that it is made from, and the options of the commands that write it.

``PAGE.md`` is what people read, ``PAGE.jsonl`` the records behind it (`archive`), ``PAGE-*.svg`` its pictures.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from benchmarks.archive import Archive
from splitveil.core.errors import InputError, SplitVeilError
from splitveil.core.records.base import Document, write_atomically

RESULTS = Path("docs/results")
D = TypeVar("D", bound=Document)


class Page:
    """One page.

    Args:
        name: of its files, without a suffix.
        folder: where they lie.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.archive = Archive(folder / f"{name}.jsonl")

    @property
    def link(self) -> str:
        """To the records, in Markdown."""
        return f"[{self.archive.path.name}]({self.archive.path.name})"

    def records(self, form: type[D], start: str = "") -> dict[str, D]:
        """All records of a kind whose names begin so, by name.

        Raises:
            InputError: there are none, or a line is damaged.
        """
        found = {name: record for name, record in self.archive.all(form).items() if name.startswith(start)}
        if not found:
            which = f"{form.kind} {start}..." if start else form.kind
            raise InputError(f"expected a {which} in {self.archive.path}, got none; run this without --page first.")
        return found

    def write(self, text: str) -> None:
        """Write the text, whole or not at all."""
        write_atomically(self.folder / f"{self.name}.md", text.encode())

    def publish(self, text: str) -> None:
        """Write the text and print it."""
        self.write(text)
        print(text)


def parser(about: str | None) -> argparse.ArgumentParser:
    """With what every command that keeps records has: ``--out`` and ``--page``."""
    asked = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--out", type=Path, default=RESULTS, help="where the page and its archive lie")
    asked.add_argument("--page", action="store_true", help="measure nothing; the page again, from its archive")
    return asked


def parsed(asked: argparse.ArgumentParser, *needed: str) -> argparse.Namespace:
    """The options; those of `needed` must be there unless only the page is wanted."""
    given = asked.parse_args()
    missing = [name for name in needed if getattr(given, name) is None]
    if missing and not given.page:
        asked.error(f"--{missing[0]} is missing; give it, or --page for the page alone.")
    return given


def save_tables(path: Path, title: str, about: str | None, lines: Sequence[str]) -> None:
    """A page without records: what was run, then its tables."""
    write_atomically(path, (f"# {title}\n\n{about}\n" + "\n".join(lines) + "\n").encode())


def start(main: Callable[[], int | None]) -> None:
    """Run a command; what is wrong with its input is said in one sentence."""
    try:
        sys.exit(main())
    except SplitVeilError as error:
        sys.exit(f"error: {error}")
