"""Imports what commands import, in the process that they are forked from: it takes longer than most commands do."""

import sklearn.datasets

import splitveil.cli
import splitveil.lab.planning
import splitveil.report
from splitveil.lab import vision

__all__ = ["sklearn", "splitveil"]

vision.timm()
