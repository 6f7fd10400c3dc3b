"""Label smoothing of either sign: the "neural vortex" of the Golden Partition Zone paper (arXiv 2506.15412)."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from splitveil.defenses.base import Defense
from splitveil.errors import InputError
from splitveil.registry import Value


class LabelSmoothing(Defense):
    """Train against ``1 - alpha`` on the true class and ``alpha / (K - 1)`` on each other one.

    Positive alpha keeps pulling features towards their class mean after the answer is right, so that R_c^2 shrinks at
    the decision level; negative alpha, the paper's control, does the opposite. Nothing changes at inference: whatever
    this protects, it protects by what the nets became. It needs training to have an effect.

    Args:
        alpha: the paper compares 0.3, 0 and -0.05.
    """

    name: ClassVar[str] = "label_smoothing"

    def __init__(self, *, alpha: float = 0.3) -> None:
        super().__init__()
        if not -1 < alpha < 1:
            raise InputError(f"expected alpha between -1 and 1, got {alpha}; use label_smoothing:alpha=0.3.")
        self.alpha = float(alpha)

    def task_loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return smoothed_cross_entropy(logits, y, self.alpha)

    def options(self) -> dict[str, Value]:
        return {"alpha": self.alpha}


def smoothed_cross_entropy(logits: Tensor, y: Tensor, alpha: float) -> Tensor:
    """``-sum_k q_k log p_k`` with q = 1 - alpha on the true class, alpha / (K - 1) elsewhere; alpha may be negative.

    The form of the released code; PyTorch's own smoothing gives the true class alpha / K as well.

    Args:
        logits: (N, K).
        y: (N,).
        alpha: below 1.
    """
    log = F.log_softmax(logits, 1)
    true = log.gather(1, y[:, None])[:, 0]
    others = log.sum(1) - true
    return -((1 - alpha) * true + alpha / (logits.shape[1] - 1) * others).mean()
