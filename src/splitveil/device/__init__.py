"""The device: asks a server about images. No torch, and nothing of the server or the lab."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splitveil.device.answer import Answer
    from splitveil.device.breaker import Breaker
    from splitveil.device.client_tls import ClientTls
    from splitveil.device.edge import Edge
    from splitveil.device.retry import Retry

__all__ = ["Answer", "Breaker", "ClientTls", "Edge", "Retry"]

_WHERE = {
    "Answer": "splitveil.device.answer",
    "Breaker": "splitveil.device.breaker",
    "ClientTls": "splitveil.device.client_tls",
    "Edge": "splitveil.device.edge",
    "Retry": "splitveil.device.retry",
}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
