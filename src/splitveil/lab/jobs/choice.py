"""`Choice`: where jobs are asked to run and with how many threads, as words say it."""

from dataclasses import dataclass

from splitveil.core.errors import InputError
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.jobs.machine import cores, memory
from splitveil.lab.jobs.pool import Inline, Pool
from splitveil.lab.jobs.processes import Processes

EACH = 2 * 2**30
"""Bytes of memory that there must be for each worker of ``auto``: torch, and images and features of its own."""
WORDS = "1, a number, auto, ray or ray://HOST:PORT"


@dataclass(frozen=True, slots=True)
class Choice:
    """Workers of one kind.

    Attributes:
        kind: ``inline``, ``processes`` or ``ray``.
        workers: at one time; with Ray as many as the cluster holds.
        threads: of torch in each; None for those that torch has already.
        address: of a Ray cluster; empty for one that is started here.
    """

    kind: str
    workers: int = 1
    threads: int | None = None
    address: str = ""

    @classmethod
    def of(cls, asked: int | str, threads: int | None = None) -> "Choice":
        """What `asked` means on this machine: ``1``, ``4``, ``auto``, ``ray`` or ``ray://HOST:PORT``.

        threads: None shares the cores out among a given number of workers; with ``auto`` and Ray it is one. ``auto`` is
        one job a GPU where GPUs compute.

        Raises:
            InputError: other words, or no thread.
        """
        if threads is not None and (isinstance(threads, bool) or threads < 1):
            raise InputError(f"expected at least one thread for a worker, got {threads}; give --threads 1.")
        words = str(asked).strip()
        if words == "auto":
            each = threads or 1
            most = min(cores() // each, memory() // EACH)
            return cls.of(max(1, min(most, gpus) if (gpus := Accelerator.chosen().gpus) else most), threads)
        if words == "ray":
            return cls("ray", threads=threads or 1)
        if words.startswith("ray:"):
            host, _, port = words.removeprefix("ray:").removeprefix("//").rpartition(":")
            if not host or not port.isdecimal() or "/" in host:
                raise InputError(
                    f"expected ray://HOST:PORT for --workers, got {asked!r}; Ray's own is ray://head:10001."
                )
            direct = not words.startswith("ray://")
            return cls("ray", threads=threads or 1, address=words.removeprefix("ray:") if direct else words)
        if isinstance(asked, bool) or not words.isdecimal() or int(words) < 1:
            raise InputError(f"expected {WORDS} for --workers, got {asked!r}; give one of these.")
        if int(words) == 1:
            return cls("inline", threads=threads)
        return cls("processes", int(words), threads or max(1, cores() // int(words)))

    def pool(self) -> Pool:
        """Its workers, none of which has started yet.

        Raises:
            MissingExtraError: Ray is not installed.
            InputError: no cluster at that address.
        """
        if self.kind == "ray":
            from splitveil.lab.jobs.ray_cluster import RayCluster

            return RayCluster(self.address, threads=self.threads or 1)
        return Inline() if self.kind == "inline" else Processes(self.workers, self.threads or 1)
