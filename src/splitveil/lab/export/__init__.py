"""A protected split as files: both halves as ONNX, a quantised edge, repositories and manifests of other servers."""

from splitveil.lab.export.graphs import CloudGraph, EdgeGraph
from splitveil.lab.export.halves import Halves, export_halves, save

__all__ = ["CloudGraph", "EdgeGraph", "Halves", "export_halves", "save"]
