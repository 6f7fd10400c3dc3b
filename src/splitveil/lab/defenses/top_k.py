"""Sending only the largest features. Not a defence: it is here to show that sparsity is not privacy."""

from typing import ClassVar

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.defenses.base import Defense
from splitveil.lab.law import Law, Masked
from splitveil.wire.codecs import Codec


class Largest(Masked):
    """What crossed where the largest features are sent: a missing one is no larger than the least that crossed."""

    def __init__(self, codec: Codec | None) -> None:
        super().__init__(lambda h: h, codec)

    def bounds(self, z: Tensor) -> tuple[Tensor, Tensor]:
        low, high = super().bounds(z)
        there = self.sent(z)
        size = torch.where(there, torch.maximum(low.abs(), high.abs()), torch.inf).flatten(1)
        least = size.amin(1).reshape(-1, *[1] * (z.ndim - 1))
        return torch.where(there, low, -least), torch.where(there, high, least)

    def exact(self, z: Tensor) -> Tensor:
        return self.sent(z)


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

    def law(self, like: Tensor, codec: Codec | None = None, times: int = 1) -> Law | None:
        return Largest(codec)

    def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
        count = max(1, round(self.keep * z[0].numel()))
        size = z.flatten(1).abs()
        least = torch.topk(size, count, dim=1).values[:, -1:]
        return (z.flatten(1) * (size >= least)).reshape(z.shape)
