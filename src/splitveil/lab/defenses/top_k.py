"""Sending only the largest features. Not a defence: it is here to show that sparsity is not privacy."""

from typing import ClassVar

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.defenses.base import Defense


class TopK(Defense):
    """The share `keep` of each sample's features that is largest in size is sent, the others are zero.

    **Not a defence.** It lowers the count of non-zeros that some papers print as privacy, while the positions of what
    is left tell nearly as much as the values: see the attack ``positions``.

    Args:
        keep: share of the features.
    """

    name: ClassVar[str] = "top_k"

    def __init__(self, *, keep: float = 0.1) -> None:
        super().__init__()
        if not 0 < keep <= 1:
            raise InputError(f"expected keep between 0 and 1, got {keep}; use top_k:keep=0.1.")
        self.keep = float(keep)

    def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
        count = max(1, round(self.keep * z[0].numel()))
        size = z.flatten(1).abs()
        least = torch.topk(size, count, dim=1).values[:, -1:]
        return (z.flatten(1) * (size >= least)).reshape(z.shape)
