"""Every place where a model can be cut, and the two halves of each."""

from splitveil.core.records import Cut
from splitveil.lab.cut.handmade import halves
from splitveil.lab.cut.pieces import Split
from splitveil.lab.cut.traced import Traced, cuts, split, tap, trace

__all__ = ["Cut", "Split", "Traced", "cuts", "halves", "split", "tap", "trace"]
