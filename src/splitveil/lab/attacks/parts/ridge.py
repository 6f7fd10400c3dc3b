"""Ridge regression from its sums of products, for one penalty after another."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def ridge_weights(
    square: Tensor, cross: Tensor, penalties: Sequence[float], *, constant: bool = False
) -> Iterator[Tensor]:
    """Weights (D, outputs) for each penalty that can be solved for, in the order given.

    Args:
        square: (D, D), products of the inputs.
        cross: (D, outputs), products with the targets.
        penalties: in units of the mean square of an input.
        constant: the last input is 1, whose weight costs nothing.
    """
    inputs = square.diagonal()[:-1] if constant else square.diagonal()
    ridge = torch.eye(len(square), dtype=square.dtype, device=square.device) * inputs.mean().clamp_min(1e-12)
    if constant:
        ridge[-1, -1] = 0
    for penalty in penalties:
        factor, failed = torch.linalg.cholesky_ex(square + penalty * ridge)
        if not int(failed):
            yield torch.cholesky_solve(cross.to(square.dtype), factor)
