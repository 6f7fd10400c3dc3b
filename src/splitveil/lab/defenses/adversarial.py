"""Adversarial representation learning: AdvLearn (Xiao et al. 2020) and ResSFL's hinge (Li et al. 2022)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.defenses.base import Adversary, Batch, Defense
from splitveil.lab.defenses.parts.rival import Rival
from splitveil.lab.tensors import ssim

TERMS = ("ssim", "mse")


class AdversarialLearning(Defense):
    """A reconstruction net learns beside the edge; the edge is rewarded for its failure, up to a bound.

    ``weight * max(SSIM(x, guess) - aim, 0)`` as in ResSFL, or ``weight * max(aim - MSE, 0)`` as in AdvLearn but with a
    bound (our reading: without one the edge would learn to fool this one net without end). One step of the net for each
    step of the edge, both in one backward pass. What fools this net need not fool a fresh one: that is what an audit is
    for.

    Args:
        weight: beside the cross-entropy.
        term: ``ssim`` or ``mse``.
        aim: where the reward ends; by default 0.3 for SSIM and 0.05 for MSE.
    """

    name: ClassVar[str] = "adversarial"

    def __init__(self, *, weight: float = 1.0, term: str = "ssim", aim: float | None = None) -> None:
        super().__init__()
        if term not in TERMS:
            raise InputError(f"unknown term {term!r} of adversarial; choose from {', '.join(TERMS)}.")
        if weight < 0:
            raise InputError(f"expected weight of at least 0, got {weight}; use adversarial:weight=1.")
        self.weight, self.term = float(weight), term
        self.aim = float(aim) if aim is not None else 0.3 if term == "ssim" else 0.05

    def adversary(self, cut: tuple[int, ...], image: tuple[int, int, int], classes: int) -> Adversary | None:
        return Rival(cut, image)

    def penalty(self, batch: Batch) -> Tensor:
        if batch.guess is None:
            return super().penalty(batch)
        return self.weight * fooled(batch.x, batch.guess(batch.z).image, self.term, self.aim)


def fooled(x: Tensor, guess: Tensor, term: str, aim: float) -> Tensor:
    """What is left of the adversary's success: ``max(SSIM - aim, 0)`` for ``ssim``, ``max(aim - MSE, 0)`` for ``mse``.

    Args:
        x: (N, C, H, W) in [0, 1].
        guess: (N, C, H, W), not clipped.
        term: ``ssim`` or ``mse``.
        aim: where it ends.
    """
    guess = guess.float()
    if term == "ssim":
        return F.relu(ssim(x, guess.clamp(0, 1)).mean() - aim)
    return F.relu(aim - torch.mean((x - guess) ** 2))
