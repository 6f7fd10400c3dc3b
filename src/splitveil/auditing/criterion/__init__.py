"""Cheap numbers that should tell how hard inversion is, each held against the attack."""

from splitveil.auditing.criterion.measure import criterion

__all__ = ["criterion"]
