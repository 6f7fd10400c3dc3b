"""Cheap numbers that should tell how hard inversion is, each held against the attack."""

from splitveil.lab.auditing.criterion.measure import check_images, criterion

__all__ = ["check_images", "criterion"]
