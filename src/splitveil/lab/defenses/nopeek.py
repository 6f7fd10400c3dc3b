"""NoPeek (Vepakomma et al. 2020, arXiv 2008.09161): features that do not lie as the images do."""

from typing import ClassVar

from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.defenses.base import Batch, Defense
from splitveil.lab.metrics.dependence import distance_correlation


class NoPeek(Defense):
    """Cross-entropy plus `weight` times the distance correlation of images and features.

    Public codes disagree on the form; this is the squared one with true (not squared) distances, biased as the paper
    trains it, and unmoved by the scale of z. Nothing is random: whatever it hides, it hides by what the edge became.

    Args:
        weight: of the distance correlation beside the cross-entropy; the papers that use it take 0.1 to 15.
    """

    name: ClassVar[str] = "nopeek"

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        if weight < 0:
            raise InputError(f"expected weight of at least 0, got {weight}; use nopeek:weight=1.")
        self.weight = float(weight)

    def penalty(self, batch: Batch) -> Tensor:
        return self.weight * distance_correlation(batch.x, batch.z.float()).to(batch.logits.dtype)
