"""Measure, defend and serve split neural networks: what do the features that a device sends reveal.

The public names, imported when first used: a device needs no torch, and lab names say what to install where it is
absent.
"""

import importlib
from typing import TYPE_CHECKING

from splitveil.core.errors import MissingExtraError, SplitVeilError

if TYPE_CHECKING:
    from splitveil.core.records import Card, Cut, Manifest, Row
    from splitveil.device import Edge
    from splitveil.lab.attacks.base import Attack
    from splitveil.lab.attacks.view import Knows, View
    from splitveil.lab.auditing import Audit, Subject, audit
    from splitveil.lab.cut import Split, cuts, halves, split, tap, trace
    from splitveil.lab.data import Dataset, load_data
    from splitveil.lab.defenses.base import Defense, Protected
    from splitveil.lab.models.loader import load_model
    from splitveil.lab.protection import protect
    from splitveil.lab.restoring import restore
    from splitveil.lab.training import fit
    from splitveil.wire.bundle import Bundle
    from splitveil.wire.codecs import Codec

__version__ = "0.1.0"

__all__ = [
    "Attack",
    "Audit",
    "Bundle",
    "Card",
    "Codec",
    "Cut",
    "Dataset",
    "Defense",
    "Edge",
    "Knows",
    "Manifest",
    "MissingExtraError",
    "Protected",
    "Row",
    "Split",
    "SplitVeilError",
    "Subject",
    "View",
    "audit",
    "cuts",
    "fit",
    "halves",
    "load_data",
    "load_model",
    "protect",
    "restore",
    "split",
    "tap",
    "trace",
]

_HOMES = {
    "Attack": "lab.attacks.base",
    "Audit": "lab.auditing",
    "Bundle": "wire.bundle",
    "Card": "core.records",
    "Codec": "wire.codecs",
    "Cut": "core.records",
    "Dataset": "lab.data",
    "Defense": "lab.defenses.base",
    "Edge": "device",
    "Knows": "lab.attacks.view",
    "Manifest": "core.records",
    "Protected": "lab.defenses.base",
    "Row": "core.records",
    "Split": "lab.cut",
    "Subject": "lab.auditing",
    "View": "lab.attacks.view",
    "audit": "lab.auditing",
    "cuts": "lab.cut",
    "fit": "lab.training",
    "halves": "lab.cut",
    "load_data": "lab.data",
    "load_model": "lab.models.loader",
    "protect": "lab.protection",
    "restore": "lab.restoring",
    "split": "lab.cut",
    "tap": "lab.cut",
    "trace": "lab.cut",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'splitveil' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"splitveil.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "splitveil":
            raise
        raise MissingExtraError(
            f"splitveil.{name} needs {error.name}, which a device does not have; pip install 'splitveil[lab]'."
        ) from None


def __dir__() -> list[str]:
    return __all__
