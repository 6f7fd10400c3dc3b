"""`Job`: one piece of work; `Shared` and `Left`: arguments that workers get otherwise than with the job itself."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from splitveil.lab.store import Facts, Kept


@dataclass(frozen=True, eq=False)
class Shared:
    """Stands for a value among a job's arguments; made by `Pool.share`."""

    key: str
    place: Any = field(repr=False)
    """Where a worker gets it: what this is, is the pool's affair."""


@dataclass(frozen=True, eq=False)
class Leaving:
    """What a job gives that leaves something for those that need it, beside its result: the store does not keep that.

    left: any value; it stays with the workers until the run ends.
    """

    kept: Kept
    left: Any


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A piece of work that depends on nothing but its arguments.

    Attributes:
        facts: all that decides its result, by which the store keeps it.
        call: ``call(*args, folder)`` gives the result, or `Leaving`. It seeds all that it draws, so that neither worker
            nor order tells; folder: for its checkpoints, from which it goes on, or None.
        args: each a value, `Shared` or `Left`.
        needs: jobs that must be finished before it begins.
    """

    facts: Facts
    call: Callable[..., Kept | Leaving]
    args: tuple[Any, ...] = ()
    needs: tuple["Job", ...] = ()

    @property
    def label(self) -> str:
        """What a reader knows it by."""
        return self.facts.label


@dataclass(frozen=True, eq=False)
class Left:
    """Stands for what a job left, among the arguments of one that needs it.

    That gets None where nothing is there: the result was found finished, or what was left is gone with its worker.
    """

    job: Job


@dataclass(frozen=True, eq=False)
class Done:
    """What a pool gives for a job: its result, what it left, and the machine that did it (empty for this one)."""

    kept: Kept
    left: Shared | None = None
    machine: str = ""
