"""`RayCluster`: workers of a Ray cluster, one that runs already or one that is started on this machine."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import cloudpickle

from splitveil.core.errors import InputError, MissingExtraError, SplitVeilError
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.jobs.arrival import parts
from splitveil.lab.jobs.job import Done, Leaving, Shared
from splitveil.lab.jobs.machine import cores
from splitveil.lab.jobs.parcel import packed
from splitveil.lab.jobs.pool import WorkerLostError
from splitveil.lab.seeds import fingerprint
from splitveil.lab.store import Kept

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
AGAIN = 3
"""Times that Ray itself does a job again whose worker was lost."""


class RayCluster:
    """Jobs as Ray's tasks, `threads` CPUs each, and one GPU where this process has one.

    What jobs take and give goes through Ray's object store alone.

    Args:
        address: ``ray://HOST:PORT`` of a client server, ``HOST:PORT`` where this machine is one of the cluster's;
            empty starts one on this machine's cores that ends with this process.
        threads: of torch in each job.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: no cluster there.
    """

    local = False

    def __init__(self, address: str, threads: int) -> None:
        self.address, self.threads = address, threads
        self._gpus = min(1, Accelerator.chosen().gpus)
        self._ray = _ray()

    @property
    def slots(self) -> int:
        """As many jobs as all the cluster's cores have threads for, and as it has GPUs for, as it is now."""
        has = self._joined.cluster_resources()
        most = has.get("CPU", 1) // self.threads
        return max(1, int(min(most, has.get("GPU", 1)) if self._gpus else most))

    def share(self, value: object) -> Shared:
        """In Ray's object store."""
        return Shared(uuid4().hex, self._joined.put(parts(value)))

    def forget(self, shared: Iterable[Shared]) -> None:
        """Ray drops what nobody refers to."""

    def submit(self, call: Callable[..., Kept | Leaving], args: tuple[Any, ...], folder: Path | None) -> "Future[Done]":
        """As a task; Ray finds a worker, and starts another one where one is lost."""
        keys = [(i, a.key) for i, a in enumerate(args) if isinstance(a, Shared)]
        given, where = tuple(None if isinstance(a, Shared) else a for a in args), Accelerator.chosen().name
        sent = packed((call, given, folder, keys, where))
        places = [a.place for a in args if isinstance(a, Shared)]
        return self._told(*self._task.remote(fingerprint()["code"], self.threads, sent, *places))

    def close(self) -> None:
        """Leave the cluster, or end the one that was started here."""
        if "_joined" in vars(self):
            self._ray.shutdown()
            del vars(self)["_joined"], vars(self)["_task"]

    @cached_property
    def _joined(self) -> Any:
        ending = signal.getsignal(signal.SIGTERM)
        quiet = (
            {"include_dashboard": False, "num_cpus": cores(), "address": "local"}
            if not self.address
            else {"address": self.address}
        )
        try:
            self._ray.init(log_to_driver=False, logging_level=logging.CRITICAL, configure_logging=False, **quiet)
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            why = " ".join(str(error).split())
            where = self.address or "this machine"
            raise InputError(
                f"cannot join a Ray cluster at {where} ({why}); start one by `ray start --head`."
            ) from None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ending)  # ours, which leaves nothing half-written
        return self._ray

    @cached_property
    def _task(self) -> Any:
        # Ray makes objects anew that went with a node, by doing again what made them.
        return self._joined.remote(max_retries=AGAIN, num_cpus=self.threads, num_gpus=self._gpus, num_returns=2)(
            _sent()
        )

    def _told(self, told: Any, left: Any) -> "Future[Done]":
        outer = Future[Done]()
        outer.set_running_or_notify_cancel()

        def tell(done: "Future[tuple[str, bytes]]") -> None:
            if (error := done.exception()) is not None:
                outer.set_exception(_lost(error))
                return
            kind, content = done.result()
            if kind == "done":
                kept, machine = cloudpickle.loads(content)
                outer.set_result(Done(kept, Shared(uuid4().hex, left), machine))
            elif kind == "failed":
                outer.set_exception(cloudpickle.loads(content))
            else:
                outer.set_exception(SplitVeilError(content.decode()))

        told.future().add_done_callback(tell)
        return outer


def _sent() -> Callable[..., Any]:
    """What a worker runs. It goes there with its text, for what stands there may be of another version."""

    def run(code: str, threads: int, sent: bytes, *places: Any) -> Any:
        try:
            from splitveil.lab.seeds import fingerprint

            if (here := fingerprint()["code"]) != code:
                told = f"expected workers with this version of SplitVeil ({code}), got one with {here}"
                return ("refused", f"{told}; install the same one on every machine.".encode()), None
            from splitveil.lab.jobs.arrival import arrived
        except ImportError as error:
            told = f"expected workers with SplitVeil, got one without ({error})"
            return ("refused", f"{told}; install this version on every machine.".encode()), None
        return arrived(threads, sent, places)

    return run


def _lost(error: BaseException) -> BaseException:
    import ray.exceptions as known

    gone = (
        known.WorkerCrashedError, known.NodeDiedError, known.ObjectLostError, known.OutOfMemoryError,
        known.LocalRayletDiedError, known.RaySystemError, known.TaskUnschedulableError,
    )  # fmt: skip
    cause = getattr(error, "cause", None)
    if isinstance(error, gone) or isinstance(cause, gone):
        return WorkerLostError(f"a worker of the Ray cluster ended in the middle of a job ({type(error).__name__})")
    return error


def _ray() -> ModuleType:
    try:
        import ray
    except ModuleNotFoundError:
        raise MissingExtraError("Ray is not installed; pip install 'splitveil[ray]'.") from None
    return ray
