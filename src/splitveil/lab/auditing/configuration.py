"""`Configuration`: one cut with one defence and one codec, which attacks are run on."""

from dataclasses import dataclass

from splitveil.core.records import Cut, Place
from splitveil.lab.cut.pieces import Split
from splitveil.lab.defenses.base import Protected


@dataclass(frozen=True, slots=True)
class Configuration:
    """One cut with one defence and one codec: what the rows of a table belong to."""

    cut: Cut
    protected: Protected
    random: bool = False
    """The edge half itself draws at random, afresh whenever an image is sent."""

    @property
    def stochastic(self) -> bool:
        """The same image crosses otherwise each time, by the defence or by the edge half itself."""
        return self.random or self.protected.defense.stochastic

    @property
    def split(self) -> Split:
        """The halves without their defence."""
        return self.protected.split

    @property
    def defense(self) -> str:
        """The defence as the registry reads it."""
        return repr(self.protected.defense)

    @property
    def codec(self) -> str:
        """The codec as the registry reads it."""
        return repr(self.protected.codec)

    @property
    def plain(self) -> bool:
        """Nothing between the halves: the answers are the whole model's, and `observe` changes nothing."""
        return self.defense == "none" and self.codec == "raw" and not self.protected.graph_sha256

    @property
    def place(self) -> Place:
        """Where its rows belong."""
        return Place(self.cut.name, self.defense, self.codec)

    @property
    def label(self) -> str:
        """``layer1 | none | raw``."""
        return self.place.label
