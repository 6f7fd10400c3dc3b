"""`Record` and `Document`: frozen results that go to JSON and back, and atomic writes.

Readers ignore keys that they do not know (later versions add keys and rename none) and refuse a document of another
major schema.
"""

import json
import os
import tempfile
import threading
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from splitveil.core.errors import InputError
from splitveil.core.printing import listed, phrase

SCHEMA_VERSION = 1
MOST_BYTES = 64 << 20
"""Of one document; the largest ones made so far have some 2 MB."""


class Record(BaseModel):
    """A frozen record; `to_json` and `from_json` are inverse."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")

    def to_json(self) -> str:
        """Indented JSON."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "the document") -> Self:
        """Read JSON.

        Raises:
            InputError: not JSON, or all the fields that are wrong, in one sentence.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            wrong = listed([_phrase(e["loc"], e["msg"]) for e in error.errors(include_url=False, include_input=False)])
            raise InputError(f"{source} is not a valid {cls.__name__.lower()} ({wrong}); write it anew.") from None


def _phrase(where: tuple[int | str, ...], what: str) -> str:
    """One fault of a document; its keys, and what a validator says of its values, may be a stranger's."""
    return f"{phrase('.'.join(map(str, where)), 80) or 'text'}: {phrase(what.removeprefix('Value error, '))}"


class Document(Record):
    """A record that stands alone in a file and names its schema."""

    kind: ClassVar[str]
    schema_version: int = SCHEMA_VERSION

    def save(self, path: Path | str) -> None:
        """Write atomically: a reader sees the old text or the new one."""
        write_atomically(Path(path), self.to_json().encode() + b"\n")

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a file.

        Raises:
            InputError: missing, unreadable, not valid, or from another schema.
        """
        try:
            with Path(path).open("rb") as file:
                text = file.read(MOST_BYTES + 1)
            if len(text) > MOST_BYTES:
                raise InputError(f"{path} is larger than {MOST_BYTES:,} bytes, which no {cls.kind} is; check the path.")
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; check the path.") from None
        found = cls.from_json(text, str(path))
        if found.schema_version != SCHEMA_VERSION:
            raise InputError(
                f"{path} has schema {found.schema_version}, expected {SCHEMA_VERSION}; use the SplitVeil that wrote it."
            )
        return found


_masking = threading.Lock()
"""The mask can only be read by setting it, which two threads must not do at once."""


def write_atomically(path: Path, content: bytes, *, secret: bool = False) -> None:
    """Write beside `path`, then rename over it; what is `secret` for its owner alone, a folder made for it as well."""
    path.parent.mkdir(mode=0o700 if secret else 0o777, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        with _masking:
            umask = os.umask(0)
            os.umask(umask)
        Path(name).chmod(0o600 if secret else 0o666 & ~umask)
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            # Of a full disk the system does not say where.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def dumps(value: object) -> str:
    """JSON of plain objects and records, for ``--json``."""
    return json.dumps(value, indent=2, default=lambda r: r.model_dump(mode="json"), allow_nan=False)
