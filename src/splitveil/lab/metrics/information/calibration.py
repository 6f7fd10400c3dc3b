"""What an estimator says where the answer is known: the rows that stand beside every information number."""

import torch
import torch.nn.functional as F
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.metrics.information.base import CalibratedEstimate, Estimator
from splitveil.lab.seeds import generator


def calibrated(
    estimator: Estimator, x: Tensor, z: Tensor, *, labels: Tensor | None = None, seed: int = 0
) -> tuple[CalibratedEstimate, ...]:
    """I(x;z) with what the same estimator says of x itself, of the label and of partners drawn at random.

    * ``x;x`` is infinite in truth: what is printed is the most that this estimator sees in these samples.
    * ``x;label`` is at most the entropy of the labels (nats): what deep features should come down to.
    * ``x;shuffled z`` is 0 in truth: how far from it is the estimator's noise.

    Args:
        estimator: such as `mine_estimate`, or a `functools.partial` of one.
        x: (N, ...).
        z: (N, ...).
        labels: (N,) classes from 0, one-hot for the estimator; None for no such row.
        seed: of the estimator in every row, and of the random partners.

    Raises:
        InputError: samples that do not pair, are too few or not finite; labels that are not one a sample.
    """
    rows = [
        CalibratedEstimate("x;z", estimator(x, z, seed=seed)),
        CalibratedEstimate("x;x", estimator(x, x, seed=seed)),
    ]
    if labels is not None:
        rows.append(CalibratedEstimate("x;label", estimator(x, one_hot(labels, len(x)), seed=seed)))
    other = torch.randperm(len(z), generator=generator(seed, "shuffled"))
    rows.append(CalibratedEstimate("x;shuffled z", estimator(x, z[other], seed=seed)))
    return tuple(rows)


def one_hot(labels: Tensor, count: int) -> Tensor:
    """(N,) whole numbers from 0 -> (N, K) of zeros and ones.

    Raises:
        InputError: not one label a sample, or not whole numbers from 0.
    """
    if labels.shape != (count,) or labels.is_floating_point() or int(labels.min()) < 0:
        raise InputError(
            f"expected {count} whole labels from 0, got {labels.dtype} of shape {tuple(labels.shape)}; "
            "leave out the samples without a label."
        )
    return F.one_hot(labels.long()).float()
