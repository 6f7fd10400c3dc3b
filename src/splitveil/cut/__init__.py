"""Every place where a model can be cut, and the two halves of each."""

from splitveil.cut.handmade import halves
from splitveil.cut.pieces import Split
from splitveil.cut.traced import Traced, cuts, split, tap, trace
from splitveil.records import Cut

__all__ = ["Cut", "Split", "Traced", "cuts", "halves", "split", "tap", "trace"]
