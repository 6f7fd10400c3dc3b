"""`Recipe`: how something is trained."""

from dataclasses import dataclass

FRESH, SLOW = 2e-3, 5e-4
"""Peak learning rates of what begins with random weights, and of what was trained before."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Epochs and peak learning rate of a training."""

    epochs: int
    lr: float = SLOW


def usual_rate(*, trained: bool) -> float:
    """Peak learning rate where nobody says; trained: whether there are weights to begin with."""
    return SLOW if trained else FRESH
