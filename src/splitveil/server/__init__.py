"""The server: the cloud half of a bundle over the Open Inference Protocol (KServe v2). No torch, no lab."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splitveil.server.lifecycle import serve

__all__ = ["serve"]

_WHERE = {
    "serve": "splitveil.server.lifecycle",
}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
