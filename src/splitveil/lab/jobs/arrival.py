"""What a worker of a Ray cluster does with a job that arrives as bytes."""

from pathlib import Path
from typing import Any

import cloudpickle
import torch

from splitveil.lab.accelerator import Accelerator
from splitveil.lab.jobs.job import Leaving
from splitveil.lab.jobs.parcel import Parcel, packed
from splitveil.lab.store import machine

KEPT = 8
"""Shared values that a worker holds at once."""

Packed = tuple[bytes, Any]
"""A parcel's parts: no class of ours, for whoever opens it may not have that."""

_held: dict[str, Any] = {}


def arrived(threads: int, sent: bytes, places: tuple[Packed | None, ...]) -> tuple[tuple[str, bytes], Packed | None]:
    """Do it: ``done`` with result and machine, or ``failed`` with the error; and what it left.

    Args:
        threads: of torch.
        sent: call, arguments, folder for checkpoints, which arguments are shared values of which keys, and the name of
            the accelerator.
        places: these.
    """
    torch.set_num_threads(threads)
    call, args, folder, keys, where = cloudpickle.loads(sent)
    given = list(args)
    for (place, key), content in zip(keys, places, strict=True):
        given[place] = _opened(key, content)
    # Elsewhere there may be no such folder, and nobody would go on from what lies in one.
    own = folder if isinstance(folder, Path) and folder.is_dir() else None
    try:
        with Accelerator.chosen(where or "auto").used():
            found = call(*given, own)
    except Exception as error:
        return ("failed", packed(error)), None
    kept, left = (found.kept, parts(found.left)) if isinstance(found, Leaving) else (found, None)
    return ("done", packed((kept, machine()))), left


def parts(value: object) -> Packed:
    """For Ray's object store, which workers of one machine read without a copy."""
    parcel = Parcel.of(value)
    return parcel.rest, parcel.beside


def _opened(key: str, content: Packed | None) -> Any:
    if content is None:
        return None
    if key not in _held:
        while len(_held) >= KEPT:
            del _held[next(iter(_held))]
        _held[key] = Parcel(*content).opened()
    return _held[key]
