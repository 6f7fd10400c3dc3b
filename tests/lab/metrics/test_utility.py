import pytest
import sklearn.metrics
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from splitveil.core.errors import InputError
from splitveil.lab.metrics.utility import (
    accuracy,
    adaptive_calibration_error,
    agreement,
    brier,
    calibration_error,
    negative_log_likelihood,
)

DRAWS = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(2000, 5, generator=DRAWS)
Y = torch.where(torch.rand(2000, generator=DRAWS) < 0.5, LOGITS.argmax(1), torch.randint(5, (2000,), generator=DRAWS))


def logits_of(confidence: Tensor) -> Tensor:
    """Two classes, the first with the confidence given."""
    return torch.stack([confidence, 1 - confidence], 1).log()


@pytest.mark.parametrize("bins", [5, 15])
def test_calibration_error_equals_torchmetrics(bins: int) -> None:
    foreign = multiclass_calibration_error(LOGITS.softmax(1), Y, num_classes=5, n_bins=bins, norm="l1")
    assert calibration_error(LOGITS, Y, bins=bins) == pytest.approx(foreign.item(), abs=1e-5)


def test_likelihoods_equal_scikit_learn() -> None:
    p = LOGITS.double().softmax(1).numpy()
    assert negative_log_likelihood(LOGITS, Y) == pytest.approx(sklearn.metrics.log_loss(Y.numpy(), p), rel=1e-9)
    two = LOGITS[:, :2]
    first = (Y == 0).numpy()
    positive = two.double().softmax(1)[:, 0].numpy()
    # scikit-learn's binary score counts one of both classes, ours both.
    wanted = 2 * sklearn.metrics.brier_score_loss(first, positive)
    assert brier(two, (~torch.from_numpy(first)).long()) == pytest.approx(wanted, rel=1e-9)


def test_calibration_of_known_confidence() -> None:
    logits = logits_of(torch.full((10,), 0.8))
    right = torch.tensor([0] * 8 + [1] * 2)
    for error in (calibration_error, adaptive_calibration_error):
        assert error(logits, right, bins=1) == pytest.approx(0, abs=1e-6)
        assert error(logits, torch.zeros(10, dtype=torch.int64), bins=1) == pytest.approx(0.2, abs=1e-6)


def test_adaptive_bins_hold_equally_many_samples() -> None:
    """Two groups of confidence inside one bin of equal width, wrong in opposite directions: only halves show it."""
    confidence = torch.tensor([0.91] * 10 + [0.93] * 10)
    y = torch.tensor([0] * 10 + [0] * 8 + [1] * 2)
    logits = logits_of(confidence)
    assert calibration_error(logits, y, bins=10) == pytest.approx(0.13 / 2 - 0.09 / 2, abs=1e-5)
    assert adaptive_calibration_error(logits, y, bins=2) == pytest.approx(0.13 / 2 + 0.09 / 2, abs=1e-5)
    assert adaptive_calibration_error(logits[:3], y[:3], bins=15) == pytest.approx(0.09, abs=1e-5)


def test_accuracy_and_agreement() -> None:
    assert accuracy(LOGITS, LOGITS.argmax(1)) == 1
    assert accuracy(LOGITS, (LOGITS.argmax(1) + 1) % 5) == 0
    assert agreement(LOGITS, 10 * LOGITS + 1) == 1
    half = torch.cat([LOGITS[:1000], -LOGITS[1000:]])
    assert agreement(LOGITS, half) == 0.5


def test_order_changes_nothing() -> None:
    for metric in (accuracy, calibration_error, adaptive_calibration_error, brier, negative_log_likelihood):
        assert metric(LOGITS.flip(0), Y.flip(0)) == pytest.approx(metric(LOGITS, Y), abs=1e-9)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="one answer for each"):
        accuracy(LOGITS, Y[:5])
    with pytest.raises(InputError, match="N > 0"):
        brier(LOGITS[:0], Y[:0])
    with pytest.raises(InputError, match="1 bin or more"):
        calibration_error(LOGITS, Y, bins=0)
    with pytest.raises(InputError, match="logits of one shape"):
        agreement(LOGITS, LOGITS[:5])
