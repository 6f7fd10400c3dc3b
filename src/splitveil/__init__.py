"""Measure, defend and serve split neural networks: what do the features that a device sends reveal.

The public names, imported when first used: a device needs no torch, and lab names say what to install where it is
absent.
"""

import importlib
from typing import TYPE_CHECKING

from splitveil.errors import MissingExtraError, SplitVeilError

if TYPE_CHECKING:
    from splitveil.attacks.base import Attack
    from splitveil.attacks.view import Knows, View
    from splitveil.auditing import Audit, Subject, audit
    from splitveil.bundle import Bundle
    from splitveil.codecs import Codec
    from splitveil.cut import Split, cuts, halves, split, tap, trace
    from splitveil.data import Dataset, load_data
    from splitveil.defenses.base import Defense, Protected
    from splitveil.models.loader import load_model
    from splitveil.protection import protect
    from splitveil.records import Card, Cut, Manifest, Row
    from splitveil.restoring import restore
    from splitveil.serving import Edge
    from splitveil.training import fit

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
    "Attack": "attacks.base",
    "Audit": "auditing",
    "Bundle": "bundle",
    "Card": "records",
    "Codec": "codecs",
    "Cut": "records",
    "Dataset": "data",
    "Defense": "defenses.base",
    "Edge": "serving",
    "Knows": "attacks.view",
    "Manifest": "records",
    "Protected": "defenses.base",
    "Row": "records",
    "Split": "cut",
    "Subject": "auditing",
    "View": "attacks.view",
    "audit": "auditing",
    "cuts": "cut",
    "fit": "training",
    "halves": "cut",
    "load_data": "data",
    "load_model": "models.loader",
    "protect": "protection",
    "restore": "restoring",
    "split": "cut",
    "tap": "cut",
    "trace": "cut",
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
