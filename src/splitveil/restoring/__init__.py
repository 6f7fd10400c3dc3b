"""`restore`: a bundle back as a split to train or to audit. The lab's side."""

from splitveil.restoring.shipped import Shipped, restore_shipped
from splitveil.restoring.weights import restore

__all__ = ["Shipped", "restore", "restore_shipped"]
