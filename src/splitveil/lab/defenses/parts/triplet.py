"""The batch-hard triplet loss (Hermans, Beyer and Leibe 2017, arXiv 1703.07737): a task loss of re-ID."""

import torch
import torch.nn.functional as F
from torch import Tensor

from splitveil.core.errors import InputError


def batch_hard_triplet(embedding: Tensor, y: Tensor, *, margin: float | None = None) -> Tensor:
    """Mean over anchors of how much farther the farthest positive is than the nearest negative (section 2, eq. 5).

    ``max(0, margin + d(a, p) - d(a, n))``, or ``softplus(d(a, p) - d(a, n))``, the paper's soft margin, without one.
    Distances are Euclidean and not squared, as the paper advises. Anchors without a positive or without a negative in
    the batch do not count; where none counts the loss is 0 and its gradient too (our reading: the paper samples P
    identities of K images each, plain shuffled batches leave anchors alone).

    An embedding that is scaled up meets a margin for nothing; give one of unit length, or no margin.

    Args:
        embedding: (N, E).
        y: (N,) int64, identities.
        margin: in units of the embedding; None for the soft margin.

    Raises:
        InputError: shapes that do not fit, or a negative margin.
    """
    if embedding.ndim != 2 or y.shape != embedding.shape[:1] or (margin is not None and margin < 0):
        raise InputError(
            f"expected embeddings (N, E), identities (N,) and a margin of at least 0, got {tuple(embedding.shape)}, "
            f"{tuple(y.shape)} and {margin}; use margin=0.3."
        )
    e = embedding.float()
    squares = e.square().sum(1)
    # Its root has no slope at 0, where equal embeddings stand; the floor gives them slope 0.
    apart = (squares[:, None] + squares[None] - 2 * e @ e.T).clamp_min(1e-12).sqrt()
    same = y[:, None] == y[None]
    itself = torch.eye(len(y), dtype=torch.bool, device=y.device)
    positive, negative = same & ~itself, ~same
    counts = positive.any(1) & negative.any(1)
    farthest = apart.masked_fill(~positive, -torch.inf).amax(1)
    nearest = apart.masked_fill(~negative, torch.inf).amin(1)
    gap = torch.where(counts, farthest, 0.0) - torch.where(counts, nearest, 0.0)
    loss = F.softplus(gap) if margin is None else (margin + gap).clamp_min(0)
    return (loss * counts).sum() / counts.sum().clamp_min(1)
