"""`Processes`: worker processes of this machine."""

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cached_property, lru_cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import cloudpickle
import torch

from splitveil.lab.accelerator import Accelerator
from splitveil.lab.jobs.job import Done, Leaving, Shared
from splitveil.lab.jobs.parcel import Parcel, packed
from splitveil.lab.jobs.pool import WorkerLostError
from splitveil.lab.store import Kept

KEPT = 8
"""Shared values that a worker holds at once."""


class Processes:
    """Jobs in processes that begin with a fresh interpreter, for a fork of torch's threads hangs.

    What jobs share and leave lies in files that only this user can read, in the system's folder for such, until
    `close`. Each worker reads them by memory map. A process starts when there is a job for it.

    Args:
        workers: processes.
        threads: of torch in each.
    """

    local = False

    def __init__(self, workers: int, threads: int) -> None:
        self.slots, self.threads = workers, threads
        self._lock = threading.Lock()
        # One executor a process: where one is killed the others go on.
        self._all, self._idle = list[ProcessPoolExecutor](), list[ProcessPoolExecutor]()

    @cached_property
    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="splitveil-jobs-"))

    def share(self, value: object) -> Shared:
        """In a file."""
        return _put(value, self._folder)

    def forget(self, shared: Iterable[Shared]) -> None:
        """Remove their files; whoever still reads one goes on."""
        for one in shared:
            Path(one.place).unlink(missing_ok=True)

    def submit(self, call: Callable[..., Kept | Leaving], args: tuple[Any, ...], folder: Path | None) -> "Future[Done]":
        """Send it to a process that has nothing to do, or to a new one."""
        sent = packed((call, args, folder, self._folder))
        with self._lock:
            worker = self._idle.pop() if self._idle else self._fresh()
        try:
            inner = worker.submit(_run, sent)
        except BrokenProcessPool:  # it was killed while it had nothing to do
            self._drop(worker)
            with self._lock:
                worker = self._fresh()
            inner = worker.submit(_run, sent)
        return self._told(worker, inner)

    def close(self) -> None:
        """Kill what is under way."""
        with self._lock:
            workers = self._all[:]
            for worker in workers:
                for process in list((worker._processes or {}).values()):
                    process.kill()
        for worker in workers:
            worker.shutdown(wait=True, cancel_futures=True)
            self._drop(worker)
        if "_folder" in vars(self):
            shutil.rmtree(self._folder, ignore_errors=True)
            del self._folder

    def _fresh(self) -> ProcessPoolExecutor:
        with _starting(OMP_NUM_THREADS=str(self.threads), **Accelerator.chosen().environment(len(self._all))):
            worker = ProcessPoolExecutor(
                1, mp_context=get_context("spawn"), initializer=_begin, initargs=(self.threads, self._folder)
            )
            worker.submit(os.getpid)  # started now, while the environment is its own
        self._all.append(worker)
        return worker

    def _drop(self, worker: ProcessPoolExecutor) -> None:
        worker.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._all = [w for w in self._all if w is not worker]
            self._idle = [w for w in self._idle if w is not worker]

    def _told(self, worker: ProcessPoolExecutor, inner: "Future[bytes]") -> "Future[Done]":
        outer = Future[Done]()
        outer.set_running_or_notify_cancel()

        def tell(done: "Future[bytes]") -> None:
            error = None if done.cancelled() else done.exception()
            if done.cancelled() or isinstance(error, BrokenProcessPool):
                self._drop(worker)
                outer.set_exception(WorkerLostError("a worker ended in the middle of a job"))
                return
            with self._lock:
                self._idle.append(worker)
            if error is not None:
                outer.set_exception(error)
            else:
                outer.set_result(cloudpickle.loads(done.result()))

        inner.add_done_callback(tell)
        return outer


@contextmanager
def _starting(**values: str) -> Iterator[None]:
    """What a process that starts inside begins with: these variables, and no program of ours that it would run again.

    What that program defines comes with the jobs, by value.
    """
    before, program = {name: os.environ.get(name) for name in values}, sys.modules["__main__"]
    os.environ.update(values)
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _begin(threads: int, folder: Path) -> None:
    torch.set_num_threads(threads)
    # What a model's own file prints is for a reader, not for whoever reads the command's answer.
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            # Whoever asked is gone; what is under way has its checkpoints, what was shared is nobody's any more.
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _run(sent: bytes) -> bytes:
    call, args, folder, shared = cloudpickle.loads(sent)
    found = call(*(_loaded(a.place) if isinstance(a, Shared) else a for a in args), folder)
    done = Done(found.kept, _put(found.left, shared)) if isinstance(found, Leaving) else Done(found)
    # As bytes: torch would send tensors through memory that is gone with the worker.
    return packed(done)


def _put(value: object, folder: Path) -> Shared:
    path = folder / uuid4().hex
    Parcel.of(value).write(path)
    return Shared(path.name, f"{path}")


@lru_cache(KEPT)
def _loaded(name: str) -> Any:
    return Parcel.read(Path(name)).opened()
