"""`Job`: one piece of work whose result the store keeps; `Shared`: what many jobs take and every worker gets once."""

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A piece of work that depends on nothing but its arguments.

    Attributes:
        facts: all that decides its result, by which the store keeps it.
        call: ``call(*args, folder)`` gives the result. It seeds all that it draws, so that neither worker nor order
            tells; folder: for its checkpoints, from which it goes on, or None.
        args: each a value or `Shared`.
        needs: jobs that must be finished before it begins.
    """

    facts: Facts
    call: Callable[..., Kept]
    args: tuple[Any, ...] = ()
    needs: tuple["Job", ...] = ()

    @property
    def label(self) -> str:
        """What a reader knows it by."""
        return self.facts.label
