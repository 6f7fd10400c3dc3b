"""`Ahead`: while one choice is measured, idle workers measure those that the search is expected to want next.

What they find waits in the store. The search asks for its choices in the same order as without workers, and what was
guessed in vain is work lost and nothing else, so that a plan is the same for every number of workers.
"""

import contextvars
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

from splitveil.core.progress import unreported
from splitveil.lab.jobs import Workers

T = TypeVar("T")


class Ahead(Generic[T]):
    """Work on several choices at once, each begun once.

    Args:
        workers: who do it; nothing is done ahead in one process.
        prepare: a choice -> what does all its work as jobs. Called in the calling thread; what it gives is called in
            another one, and draws nothing at random itself.
    """

    def __init__(self, workers: Workers, prepare: Callable[[T], Callable[[], None]]) -> None:
        self.workers, self._prepare = workers, prepare
        self._begun: dict[T, Future[None]] = {}
        self._threads: ThreadPoolExecutor | None = None

    def ready(self, choice: T, guesses: Callable[[int], Iterable[T]]) -> None:
        """Wait until the work on `choice` is done. guesses: so many that may be wanted next, the likeliest first.

        Raises:
            Exception: what its work raised.
        """
        if self.workers.inline:
            return
        self._begin(choice)
        if idle := self.workers.pool.slots - sum(not f.done() for f in self._begun.values()):
            for guess in guesses(max(0, idle)):
                self._begin(guess)
        self._begun[choice].result()

    def settle(self) -> None:
        """Wait for what is under way, so that nothing else keeps this machine busy."""
        wait(self._begun.values())

    def close(self) -> None:
        """Begin nothing more."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _begin(self, choice: T) -> None:
        if choice in self._begun:
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(2 * self.workers.pool.slots + 1, thread_name_prefix="ahead")
        work = self._prepare(choice)

        def quietly() -> None:
            with unreported():
                work()

        self._begun[choice] = self._threads.submit(contextvars.copy_context().run, quietly)
