"""`Place`: a cut with a defence and a codec, which the rows of a card belong to."""

from typing import NamedTuple

from splitveil.core.records.base import Record

BETWEEN = " | "


class Place(NamedTuple):
    """Cut, defence and codec, each as its registry reads it."""

    cut: str
    defense: str
    codec: str

    @property
    def label(self) -> str:
        """``layer1 | noise:sigma=0.5 | raw``: key of a card's accuracies, and what seeds are derived from."""
        return self.text()

    def text(self, *more: str) -> str:
        """The label and what happens there: ``layer1 | none | raw | decoder:epochs=6``."""
        return BETWEEN.join((*self, *more))


class Placed(Record):
    """A record of what happened at one place."""

    cut: str
    defense: str
    codec: str

    @property
    def place(self) -> Place:
        """Where."""
        return Place(self.cut, self.defense, self.codec)

    @property
    def label(self) -> str:
        """``layer1 | noise:sigma=0.5 | raw``."""
        return self.place.label
