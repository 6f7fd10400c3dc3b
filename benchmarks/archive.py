"""The archive of a page: every record that the page is made from, one JSON line each, under its kind and its name.

    python -m benchmarks.archive docs/results/he2019.jsonl                                # what it holds
    python -m benchmarks.archive docs/results/he2019.jsonl cnn6-none-seed0 > card.json    # one record, as a file

``docs/results/PAGE.jsonl`` belongs to ``docs/results/PAGE.md``. A line is ``{"kind": "card", "name":
"cnn6-none-seed0", "record": {...}}``; kind and name together stand once in an archive.
"""

import argparse
import fcntl
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue

from splitveil.core.errors import InputError, SplitVeilError
from splitveil.core.records.base import SCHEMA_VERSION, Document, Record, dumps, write_atomically

D = TypeVar("D", bound=Document)


class Line(Record):
    """One record and what it is."""

    kind: str
    name: str
    record: dict[str, JsonValue]


class Archive:
    """Records in a file of JSON lines; a file that is not there holds none.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> dict[tuple[str, str], Line]:
        """Every line by kind and name, in order.

        Raises:
            InputError: a line is damaged, or says again what an earlier one says.
        """
        content = self.path.read_bytes() if self.path.exists() else b""
        found: dict[tuple[str, str], Line] = {}
        for number, text in enumerate(content.splitlines(), 1):
            line = Line.from_json(text, f"line {number} of {self.path}")
            if (line.kind, line.name) in found:
                raise InputError(
                    f"line {number} of {self.path} is a second {line.kind} {line.name!r}, expected one; delete either."
                )
            found[line.kind, line.name] = line
        return found

    def all(self, form: type[D]) -> dict[str, D]:
        """Every record of a kind by name, in order.

        Raises:
            InputError: a line is damaged, a record not valid or from another schema.
        """
        return {name: self._read(form, line) for (kind, name), line in self.lines().items() if kind == form.kind}

    def find(self, form: type[D], name: str) -> D | None:
        """One record, or None. Raises as `all` does."""
        line = self.lines().get((form.kind, name))
        return self._read(form, line) if line else None

    def kept(self, form: type[D], name: str, make: Callable[[], D]) -> D:
        """The record of that name, made and put here if there is none yet."""
        found = self.find(form, name)
        if found is None:
            found = make()
            self.put({name: found})
        return found

    def put(self, records: Mapping[str, Document]) -> None:
        """Replace records by kind and name, append those that are new; a reader sees all of them or none.

        Several processes may change one archive at the same time.

        Raises:
            InputError: a line is damaged; nothing is written then.
        """
        new = [{"kind": r.kind, "name": name, "record": r.model_dump(mode="json")} for name, r in records.items()]
        with self._changed() as lines:
            lines |= {(line.kind, line.name): line for line in map(Line.model_validate, new)}

    def drop(self, form: type[Document], names: Iterable[str]) -> None:
        """Take these records of a kind out, as far as they are there. Raises as `put` does."""
        with self._changed() as lines:
            for name in names:
                lines.pop((form.kind, name), None)

    def _read(self, form: type[D], line: Line) -> D:
        source = f"{line.kind} {line.name!r} of {self.path}"
        found = form.from_json(dumps(line.record), source)
        if found.schema_version != SCHEMA_VERSION:
            raise InputError(
                f"{source} has schema {found.schema_version}, expected {SCHEMA_VERSION}; "
                "use the SplitVeil that wrote it."
            )
        return found

    @contextmanager
    def _changed(self) -> Iterator[dict[tuple[str, str], Line]]:
        """The lines, written anew when the caller has changed them; whoever else wants to change them waits."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            lines = self.lines()
            yield lines
            text = "".join(line.model_dump_json() + "\n" for line in lines.values())
            write_atomically(self.path, text.encode())
        finally:
            os.close(folder)


def main(argv: list[str] | None = None) -> int:
    """List an archive or print one of its records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("name", nargs="?", help="of the record to print; without it, what there is")
    parser.add_argument("--kind", help="where records of two kinds bear that name")
    given = parser.parse_args(argv)
    try:
        if not given.archive.exists():
            raise InputError(f"expected an archive, got {given.archive}, which is not there; check the path.")
        lines = Archive(given.archive).lines()
        if given.name is None:
            sys.stdout.writelines(f"{kind}\t{name}\n" for kind, name in lines)
            return 0
        named = [line for (kind, name), line in lines.items() if name == given.name and given.kind in (None, kind)]
        if len(named) != 1:
            what = f"a record {given.name!r}" + (f" of kind {given.kind!r}" if given.kind else "")
            raise InputError(f"expected {what} in {given.archive}, got {len(named)}; without a name, all are listed.")
    except SplitVeilError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(dumps(named[0].record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
