"""Both ends of the wire, speaking the Open Inference Protocol (KServe v2) over gRPC. No torch here.

``Edge`` is imported without the server, and neither before it is asked for.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splitveil.serving.answer import Answer
    from splitveil.serving.breaker import Breaker
    from splitveil.serving.client_tls import ClientTls
    from splitveil.serving.edge import Edge
    from splitveil.serving.lifecycle import serve
    from splitveil.serving.retry import Retry

__all__ = ["Answer", "Breaker", "ClientTls", "Edge", "Retry", "serve"]

_WHERE = {
    "Answer": "splitveil.serving.answer",
    "Breaker": "splitveil.serving.breaker",
    "ClientTls": "splitveil.serving.client_tls",
    "Edge": "splitveil.serving.edge",
    "Retry": "splitveil.serving.retry",
    "serve": "splitveil.serving.lifecycle",
}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
