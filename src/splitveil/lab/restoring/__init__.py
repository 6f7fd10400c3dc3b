"""`restore`: a bundle back as a split to train or to audit. The lab's side."""

from splitveil.lab.restoring.shipped import Shipped, restore_shipped
from splitveil.lab.restoring.weights import restore

__all__ = ["Shipped", "restore", "restore_shipped"]
