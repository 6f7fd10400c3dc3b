"""What a worker of another machine does with a job that arrives as bytes."""

from pathlib import Path
from typing import Any

import cloudpickle
import torch

KEPT = 8
"""Shared values that a worker holds at once."""

_held: dict[str, Any] = {}


def arrived(threads: int, sent: bytes, places: tuple[bytes, ...]) -> tuple[str, bytes]:
    """Do it: ``done`` with the result, or ``failed`` with the error.

    Args:
        threads: of torch.
        sent: call, arguments, folder for checkpoints, and which arguments are shared values of which keys.
        places: these.
    """
    torch.set_num_threads(threads)
    call, args, folder, keys = cloudpickle.loads(sent)
    given = list(args)
    for (place, key), content in zip(keys, places, strict=True):
        given[place] = _opened(key, content)
    # Elsewhere there may be no such folder, and nobody would go on from what lies in one.
    own = folder if isinstance(folder, Path) and folder.is_dir() else None
    try:
        return "done", bytes(cloudpickle.dumps(call(*given, own)))
    except Exception as error:
        return "failed", bytes(cloudpickle.dumps(error))


def _opened(key: str, content: bytes) -> Any:
    if key not in _held:
        while len(_held) >= KEPT:
            del _held[next(iter(_held))]
        _held[key] = cloudpickle.loads(content)
    return _held[key]
