"""`Pool`: where jobs run. `Inline` is this process."""

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from splitveil.core.errors import SplitVeilError
from splitveil.lab.jobs.job import Shared
from splitveil.lab.store import Kept


class WorkerLostError(SplitVeilError):
    """A worker ended in the middle of a job: killed, or out of memory."""


class Pool(Protocol):
    """Workers, each doing one job at a time."""

    @property
    def slots(self) -> int:
        """Jobs that can run at once."""
        ...

    @property
    def local(self) -> bool:
        """Whether work may be done in the calling thread: one slot, and nothing has to be sent."""
        ...

    def share(self, value: object) -> Shared:
        """Make `value` an argument that every worker gets once."""
        ...

    def submit(self, call: Callable[..., Kept], args: tuple[Any, ...], folder: Path | None) -> "Future[Kept]":
        """Begin ``call(*args, folder)``; fails with `WorkerLostError` where its worker is lost, which is replaced."""
        ...

    def close(self) -> None:
        """Stop all workers at once, whatever they do, and forget what was shared."""
        ...


class Inline:
    """Jobs one after another in this process, with all its cores."""

    slots, local = 1, True

    def share(self, value: object) -> Shared:
        """Nothing is sent."""
        return Shared(f"{id(value)}", value)

    def submit(self, call: Callable[..., Kept], args: tuple[Any, ...], folder: Path | None) -> "Future[Kept]":
        """Do it now."""
        done = Future[Kept]()
        try:
            done.set_result(call(*(a.place if isinstance(a, Shared) else a for a in args), folder))
        except Exception as error:
            done.set_exception(error)
        return done

    def close(self) -> None:
        """There is nothing to stop."""
