"""`Workers`: does lists of jobs, each once, whoever else does the same at the time."""

import contextvars
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar, Union

import torch

from splitveil.core.progress import task
from splitveil.lab.jobs.choice import Choice
from splitveil.lab.jobs.job import Done, Job, Left, Shared
from splitveil.lab.jobs.pool import Inline, Pool, WorkerLostError
from splitveil.lab.jobs.turns import PACE, Pace, Turns
from splitveil.lab.store import Claim, Kept, Store

T = TypeVar("T")
TRIES = 3
"""Workers that may be lost over one job; before the last one it has all the others to itself."""
LOOK = 0.5
"""Seconds between two looks at what another run has under way."""


@dataclass(slots=True, eq=False)
class _Going:
    """One job on its way."""

    job: Job
    pace: Pace
    tries: int = 0
    begun: float = 0.0
    looked: bool = False
    claim: Claim | None = None
    future: "Future[Done]" = field(default_factory=Future)
    found: Kept | None = None
    left: Shared | None = None
    error: BaseException | None = None

    @property
    def over(self) -> bool:
        return self.found is not None or self.error is not None


@dataclass(slots=True, eq=False)
class Workers:
    """Runs jobs in a pool.

    The result of a job depends on its arguments alone, so that records are the same for every pool, number of workers
    and order. What is finished is found in the store; what another run on the same folder has under way is waited for,
    while there is other work. A job that fails does not stop the others: its error is raised when they are finished.
    """

    pool: Pool = field(default_factory=Inline)
    _turns: Turns = field(default_factory=Turns)
    _closed: bool = False

    @classmethod
    @contextmanager
    def of(cls, asked: Union[int, str, "Workers"] = 1, threads: int | None = None) -> Iterator["Workers"]:
        """Those that words ask for, closed at the end; given workers are given back as they are.

        While inside, torch has their number of threads in this process too, so that all parts of a result are made
        with the same number, whoever makes them.

        Args:
            asked: ``1`` for this process, a number of others, ``auto``, ``ray`` or ``ray://HOST:PORT``; see `Choice`.
            threads: of torch in each worker; None as `Choice.of` says.

        Raises:
            InputError: other words.
            MissingExtraError: Ray is not installed.
        """
        if isinstance(asked, Workers):
            yield asked
            return
        choice, before = Choice.of(asked, threads), torch.get_num_threads()
        with cls(choice.pool()) as workers:
            try:
                torch.set_num_threads(choice.threads or before)
                yield workers
            finally:
                torch.set_num_threads(before)

    @property
    def inline(self) -> bool:
        """Whether jobs run in this process, one after another."""
        return self.pool.local

    def share(self, value: object) -> Shared:
        """An argument that every worker gets once."""
        return self.pool.share(value)

    def reached(self, value: object) -> Shared:
        """The same, once a worker has opened it.

        Raises:
            Exception: other people's classes raise anything where they cannot be packed here or opened there.
        """
        shared = self.share(value)
        try:
            self.pool.submit(_opened, (shared,), None).result()
        except WorkerLostError:
            return shared  # that is no fault of the value
        return shared

    def close(self) -> None:
        """Stop what is under way; flows that still go on end at their next job, and nothing is tried again."""
        with self._turns.changed:
            self._closed = True
            self._turns.changed.notify_all()
        self.pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def each(self, flows: Sequence[Callable[[], T]]) -> list[T]:
        """What these give, which go on beside each other where there are workers; each asks for jobs as it goes.

        A flow computes nothing itself that draws at random: it runs in a thread. All go on to their end, also where
        one fails; then its error is raised.
        """
        if self.inline or len(flows) < 2:
            return [flow() for flow in flows]
        threads = ThreadPoolExecutor(len(flows), thread_name_prefix="flow")
        try:
            futures = [threads.submit(_context().run, flow) for flow in flows]
            errors = [error for future in futures if (error := future.exception()) is not None]
        finally:
            threads.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C `close` ends them
        if errors and (others := [str(error) for error in errors[1:] if error is not errors[0]]):
            errors[0].add_note(f"{len(others)} more went wrong: {' '.join(dict.fromkeys(others))}")
        return [future.result() for future in futures]

    def forget(self, shared: Iterable[Shared]) -> None:
        """These are needed no more."""
        self.pool.forget(shared)

    def run(self, jobs: Sequence[Job], store: Store, what: str = "jobs") -> list[Kept]:
        """Results, in the order of `jobs`. Every job that one of them needs is among them.

        Raises:
            WorkerLostError: a job that no worker survives.
            Exception: what a job raised, with the names of the others that failed.
        """
        everything = self._done(jobs, store, what)
        found = [_result(g, everything) for g in everything]
        self.forget(g.left for g in everything if g.left is not None)
        return found

    def spread(self, jobs: Sequence[Job], what: str = "jobs") -> list[tuple[Kept, Shared]]:
        """What jobs give and leave, with nothing kept: work whose large results only other jobs need.

        Whoever gets them has `forget` called in the end.
        """
        everything = self._done(jobs, Store(None), what)
        return [(_result(g, everything), g.left or Shared("", None)) for g in everything]

    def _done(self, jobs: Sequence[Job], store: Store, what: str) -> list[_Going]:
        pace = PACE.get() or Pace()
        going = {id(job): _Going(job, pace) for job in jobs}
        with task(what, len(jobs)) as show:
            try:
                self._all(list(going.values()), going, store, show)
            finally:
                self._turns.withdraw(map(id, going.values()))
                for g in going.values():
                    if g.claim is not None:
                        g.claim.release()
        return list(going.values())

    def _all(self, waiting: list[_Going], going: dict[int, _Going], store: Store, show: Callable[..., None]) -> None:
        total, under_way = len(waiting), list[_Going]()
        while waiting or under_way:
            if self._closed:
                raise WorkerLostError("the workers were stopped before all was done")
            for g in [g for g in under_way if g.future.done()]:
                under_way.remove(g)
                if not self._ended(g, store):
                    waiting.insert(0, g)
            moved = False
            for g in list(waiting):
                needed = [going[id(n)] for n in g.job.needs]
                if any(n.error for n in needed):
                    g.error = next(n.error for n in needed if n.error)
                elif not all(n.over for n in needed):
                    continue
                else:
                    names = [o.job.label for o in (*under_way, g)[-2:]]
                    show(total - len(waiting) - len(under_way), ", ".join(names))
                    if not self._begin(g, store, going):
                        continue
                moved = True
                waiting.remove(g)
                if not g.over:
                    under_way.append(g)
                    if g.future.done():
                        break  # done in this process: it is kept before anything else begins
            show(total - len(waiting) - len(under_way), ", ".join(g.job.label for g in under_way[:2]))
            if not moved and (waiting or under_way):
                with self._turns.changed:
                    if not any(g.future.done() for g in under_way):
                        self._turns.changed.wait(LOOK)

    def _begin(self, g: _Going, store: Store, going: dict[int, _Going]) -> bool:
        """Whether it is under way now, or finished; not where no worker is free or another run has it."""
        alone, turns, slots = g.tries == TRIES - 1, self._turns, self.pool.slots
        with turns.changed:
            free = turns.mine(id(g), g.pace, slots, alone=alone)
        if not free and g.looked:
            return False
        g.looked = True
        if g.tries == 0 and (found := store.find(g.job.facts)) is not None:
            g.found = found
            turns.withdraw([id(g)])
            return True
        with turns.changed:
            if not turns.mine(id(g), g.pace, slots, alone=alone):
                return False
            g.claim = g.claim or store.claim(g.job.facts)
            if g.claim is None:
                return False
            turns.begin(alone=alone)
        try:
            # Once more, for another run may have finished it a moment ago.
            if g.tries == 0 and (found := store.find(g.job.facts)) is not None:
                g.found = found
                turns.end()
                self._unclaim(g)
                return True
            # What was left may have gone with the worker.
            left = {id(n): going[id(n)].left if g.tries == 0 else None for n in g.job.needs}
            args = tuple(left.get(id(a.job)) if isinstance(a, Left) else a for a in g.job.args)
            g.tries, g.begun = g.tries + 1, time.monotonic()
            g.future = self.pool.submit(g.job.call, args, store.workdir(g.job.facts))
        except BaseException:
            turns.end()
            raise
        g.future.add_done_callback(lambda _: turns.end())
        return True

    def _ended(self, g: _Going, store: Store) -> bool:
        """Keep what it came to; whether that is its end."""
        error = g.future.exception()
        g.pace.longest = max(g.pace.longest, time.monotonic() - g.begun)
        if error is None:
            done = g.future.result()
            g.found, g.left = done.kept, done.left
            store.keep(g.job.facts, *done.kept, by=done.machine)
        elif isinstance(error, WorkerLostError) and g.tries < TRIES:
            return False
        else:
            g.error = error
        self._unclaim(g)
        return True

    def _unclaim(self, g: _Going) -> None:
        if g.claim is not None:
            g.claim.release()
            g.claim = None


def _context() -> contextvars.Context:
    """For a thread of a flow, with a pace of its own unless it is part of one."""
    context = contextvars.copy_context()
    if PACE.get() is None:
        context.run(PACE.set, Pace())
    return context


def _opened(_value: object, _folder: Path | None) -> Kept:
    """A worker that gets here has opened what was sent."""
    return "", {}


def _result(g: _Going, everything: Iterable[_Going]) -> Kept:
    if g.error is not None:
        failed = {id(o.error): o for o in everything if o.error is not None}
        if others := [o.job.label for key, o in failed.items() if key != id(g.error)]:
            g.error.add_note(f"{len(others)} other job{'s' * (len(others) > 1)} failed as well: {', '.join(others)}.")
        raise g.error
    if g.found is None:
        raise RuntimeError(f"{g.job.label} was neither done nor given up")
    return g.found
