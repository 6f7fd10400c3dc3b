"""`Processes`: worker processes of this machine."""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cached_property, lru_cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import cloudpickle
import torch

from splitveil.lab.jobs.job import Shared
from splitveil.lab.jobs.pool import WorkerLostError
from splitveil.lab.store import Kept

KEPT = 8
"""Shared values that a worker holds at once."""


class Processes:
    """Jobs in processes that begin with a fresh interpreter, for a fork of torch's threads hangs.

    What jobs share lies in files that only this user can read, in the system's folder for such, until `close`.

    Args:
        workers: processes.
        threads: of torch in each.
    """

    local = False

    def __init__(self, workers: int, threads: int) -> None:
        self.slots, self.threads = workers, threads
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None  # started when there is something to do

    @cached_property
    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="splitveil-jobs-"))

    def share(self, value: object) -> Shared:
        """In a file."""
        handle, name = tempfile.mkstemp(dir=self._folder, prefix="shared-")
        with os.fdopen(handle, "wb") as out:
            cloudpickle.dump(value, out)
        return Shared(Path(name).name, name)

    def submit(self, call: Callable[..., Kept], args: tuple[Any, ...], folder: Path | None) -> "Future[Kept]":
        """Send it. Where one worker is lost all of them begin anew, and every job under way is lost."""
        sent = cloudpickle.dumps((call, args, folder))
        with self._lock:
            self._pool = self._pool or self._fresh()
            try:
                inner = self._pool.submit(_run, sent)
            except BrokenProcessPool:
                self._pool.shutdown(wait=False, cancel_futures=True)
                self._pool = self._fresh()
                inner = self._pool.submit(_run, sent)
        return _told(inner)

    def close(self) -> None:
        """Kill what is under way."""
        with self._lock:
            pool, self._pool = self._pool, None
            if pool is not None:
                for process in list((pool._processes or {}).values()):
                    process.kill()
                pool.shutdown(wait=True, cancel_futures=True)
        if "_folder" in vars(self):
            shutil.rmtree(self._folder, ignore_errors=True)
            del self._folder

    def _fresh(self) -> ProcessPoolExecutor:
        with _environment(OMP_NUM_THREADS=str(self.threads)):
            pool = ProcessPoolExecutor(
                self.slots, mp_context=get_context("spawn"), initializer=_begin, initargs=(self.threads,)
            )
            for _ in range(self.slots):
                pool.submit(os.getpid)  # started now, while the environment is theirs
        return pool


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)  # whoever asked is gone; what is under way has its checkpoints

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _run(sent: bytes) -> bytes:
    call, args, folder = cloudpickle.loads(sent)
    found = call(*(_loaded(a.place) if isinstance(a, Shared) else a for a in args), folder)
    # As bytes: torch would send tensors through memory that is gone with the worker.
    return bytes(cloudpickle.dumps(found))


@lru_cache(KEPT)
def _loaded(name: str) -> Any:
    return cloudpickle.loads(Path(name).read_bytes())


def _told(inner: "Future[bytes]") -> "Future[Kept]":
    outer = Future[Kept]()
    outer.set_running_or_notify_cancel()

    def tell(done: "Future[bytes]") -> None:
        if done.cancelled():
            outer.set_exception(WorkerLostError("a worker was stopped"))
        elif isinstance(error := done.exception(), BrokenProcessPool):
            outer.set_exception(WorkerLostError("a worker ended in the middle of a job"))
        elif error is not None:
            outer.set_exception(error)
        else:
            outer.set_result(cloudpickle.loads(done.result()))

    inner.add_done_callback(tell)
    return outer
