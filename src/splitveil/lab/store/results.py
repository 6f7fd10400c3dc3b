"""`Results`: where what is found goes, and with what it goes on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splitveil.core.errors import InputError
from splitveil.core.records import claim, write_atomically
from splitveil.lab.store.shelf import Store, is_remote


@dataclass(frozen=True, kw_only=True)
class Results:
    """Where results live.

    Attributes:
        folder: for what is found and for everything behind it; None keeps nothing but what goes to `cache`.
        resume: go on with what is there.
        cache: folder, or URL, of finished work that several runs share; None for ``units`` in `folder`.
    """

    folder: Path | None = None
    resume: bool = False
    cache: Path | str | None = None

    def claimed(self) -> "Results":
        """Itself, once it is sure that results may be written there; see `splitveil.core.records.claim`."""
        if self.folder is not None:
            claim(self.folder, resume=self.resume)
        if self.cache is not None and not is_remote(self.cache):
            claim(Path(self.cache), resume=True)
        return self

    def store(self, guard: Mapping[str, Any]) -> Store:
        """The store of finished work, once the folder is marked as this run's.

        Args:
            guard: what must not change while resuming; another value is another run.

        Raises:
            InputError: the folder holds another run, or any while not resuming.
        """
        if self.folder is None:
            return Store(self.cache)
        claim(self.folder, resume=self.resume)
        mark, work = self.folder / "run.json", self.folder / "units"
        _check(mark, guard)
        work.mkdir(parents=True, exist_ok=True)
        write_atomically(mark, json.dumps(guard, indent=2).encode())
        return Store(work if self.cache is None else self.cache, work=work)


def _check(mark: Path, guard: Mapping[str, Any]) -> None:
    if not mark.exists():
        return
    try:
        held = json.loads(mark.read_text())
        differing = [k for k, v in guard.items() if held.get(k) != json.loads(json.dumps(v))]
    except (ValueError, AttributeError):
        raise InputError(f"{mark} is damaged; give another --out.") from None
    if differing:
        raise InputError(
            f"{mark.parent} holds another audit (it differs in {', '.join(differing)}); give another --out."
        )
