"""What the task loses by a defence: accuracy, agreement and calibration, pure functions on logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.tensors import classes_of

BINS = 15
"""As in Guo et al. 2017."""


def accuracy(logits: Tensor, y: Tensor) -> float:
    """Share of samples whose largest logit is the label's. logits: (N, K), y: (N,).

    Raises:
        InputError: shapes that do not fit, or no sample.
        AnswerError: NaN or infinite logits.
    """
    _check(logits, y)
    return (classes_of(logits) == y).double().mean().item()


def agreement(logits: Tensor, undefended: Tensor) -> float:
    """Share of samples on which two models answer alike, right or wrong. (N, K) twice.

    Raises:
        InputError: shapes that do not fit, or no sample.
    """
    if logits.shape != undefended.shape:
        raise InputError(
            f"expected logits of one shape, got {tuple(logits.shape)} and {tuple(undefended.shape)}; "
            "ask both models the same samples."
        )
    other = classes_of(undefended)
    _check(logits, other)
    return (classes_of(logits) == other).double().mean().item()


def calibration_error(logits: Tensor, y: Tensor, *, bins: int = BINS) -> float:
    """Expected calibration error in [0, 1], bins of equal width over the top confidence (Guo et al. 2017, section 2).

    Bins are open below and closed above, as in the paper.

    Args:
        logits: (N, K).
        y: (N,).
        bins: 1 or more.

    Raises:
        InputError: shapes that do not fit, no sample, no bin.
    """
    confidence, correct = _top(logits, y, bins)
    return _gap(confidence, correct, (confidence * bins).ceil().long().clamp(1, bins) - 1, bins)


def adaptive_calibration_error(logits: Tensor, y: Tensor, *, bins: int = BINS) -> float:
    """Calibration error of the top answer over bins that hold equally many samples (Nixon et al. 2019, section 3).

    The paper's ranges over all classes; the top answer only is our reading, so that both errors compare.

    Args:
        logits: (N, K).
        y: (N,).
        bins: 1 or more; no more than samples are used.

    Raises:
        InputError: shapes that do not fit, no sample, no bin.
    """
    confidence, correct = _top(logits, y, bins)
    used = min(bins, len(confidence))
    index = torch.empty(len(confidence), dtype=torch.int64, device=confidence.device)
    ranks = torch.arange(len(confidence), device=confidence.device)
    index[confidence.argsort(stable=True)] = ranks * used // len(confidence)
    return _gap(confidence, correct, index, used)


def brier(logits: Tensor, y: Tensor) -> float:
    """Brier score: squared distance of probabilities to the label's, summed over classes, in [0, 2]. (N, K), (N,).

    Raises:
        InputError: shapes that do not fit, or no sample.
    """
    _check(logits, y)
    wrong = logits.double().softmax(1) - F.one_hot(y, logits.shape[1])
    return wrong.square().sum(1).mean().item()


def negative_log_likelihood(logits: Tensor, y: Tensor) -> float:
    """Mean of -ln p(y), in nats. logits: (N, K), y: (N,).

    Raises:
        InputError: shapes that do not fit, or no sample.
    """
    _check(logits, y)
    return F.cross_entropy(logits.double(), y).item()


def _top(logits: Tensor, y: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Confidence and correctness of the top answer: (N,), (N,)."""
    _check(logits, y)
    if bins < 1:
        raise InputError(f"expected 1 bin or more, got {bins}; use {BINS}.")
    confidence, answer = logits.double().softmax(1).max(1)
    return confidence, (answer == y).double()


def _gap(confidence: Tensor, correct: Tensor, index: Tensor, bins: int) -> float:
    """Sum over bins of their share times the gap between confidence and accuracy."""
    gaps = torch.zeros(bins, dtype=torch.float64, device=confidence.device)
    gaps.index_add_(0, index, confidence - correct)
    return gaps.abs().sum().item() / len(confidence)


def _check(logits: Tensor, y: Tensor) -> None:
    if logits.ndim != 2 or y.ndim != 1 or len(logits) != len(y) or len(y) == 0:
        raise InputError(
            f"expected logits (N, K) and one answer for each of N > 0 samples, got {tuple(logits.shape)} and "
            f"{tuple(y.shape)}; give both for the same samples."
        )
