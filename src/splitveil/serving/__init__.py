"""Both ends of the wire, speaking the Open Inference Protocol (KServe v2) over gRPC. No torch here.

``Edge`` is imported without the server, and neither before it is asked for.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splitveil.serving.edge import Edge
    from splitveil.serving.server import serve

__all__ = ["Edge", "serve"]

_WHERE = {"Edge": "splitveil.serving.edge", "serve": "splitveil.serving.server"}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
