"""`Pool`: where jobs run. `Inline` is this process."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from splitveil.core.errors import SplitVeilError
from splitveil.lab.jobs.job import Done, Leaving, Shared
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
        """Make `value` an argument that every worker gets once; nobody may change it."""
        ...

    def forget(self, shared: Iterable[Shared]) -> None:
        """These are needed no more."""
        ...

    def submit(self, call: Callable[..., Kept | Leaving], args: tuple[Any, ...], folder: Path | None) -> "Future[Done]":
        """Begin ``call(*args, folder)``; fails with `WorkerLostError` where its worker is lost, which is replaced."""
        ...

    def close(self) -> None:
        """Stop all workers at once, whatever they do, and forget what was shared."""
        ...


class Inline:
    """Jobs one after another in this process."""

    slots, local = 1, True

    def share(self, value: object) -> Shared:
        """Nothing is sent."""
        return Shared(f"{id(value)}", value)

    def forget(self, shared: Iterable[Shared]) -> None:
        """Nothing is held."""

    def submit(self, call: Callable[..., Kept | Leaving], args: tuple[Any, ...], folder: Path | None) -> "Future[Done]":
        """Do it now."""
        done = Future[Done]()
        try:
            found = call(*(a.place if isinstance(a, Shared) else a for a in args), folder)
            left = isinstance(found, Leaving)
            done.set_result(Done(found.kept, self.share(found.left)) if left else Done(found))  # type: ignore[union-attr,arg-type]
        except Exception as error:
            done.set_exception(error)
        return done

    def close(self) -> None:
        """There is nothing to stop."""
