"""The undefended split: the row that every other one is compared with."""

from typing import ClassVar

from splitveil.defenses.base import Defense


class Undefended(Defense):
    """Features leave the device as they are."""

    name: ClassVar[str] = "none"
