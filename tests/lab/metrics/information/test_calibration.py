"""The rows beside an information number."""

import math
from functools import partial

import pytest
import torch

from splitveil.core.errors import InputError, UnknownNameError
from splitveil.lab.metrics.information import ESTIMATORS
from splitveil.lab.metrics.information.calibration import calibrated
from splitveil.lab.metrics.information.ksg import ksg_estimate
from splitveil.lab.metrics.information.mine import mine_estimate
from tests.lab.metrics.information.gaussians import gaussians

N = 1200


def labelled() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Four clouds: (N, 2, 1, 1), a noisy view of them (N, 2), and which cloud."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (N,), generator=draws)
    corners = 10 * torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    x = corners[labels] + torch.randn(N, 2, generator=draws)
    return x[:, :, None, None], x + torch.randn(N, 2, generator=draws), labels


@pytest.mark.parametrize("estimator", [ksg_estimate, partial(mine_estimate, steps=100)], ids=["ksg", "mine"])
def test_the_rows_are_ordered_as_the_truth_is(estimator: object) -> None:
    x, z, labels = labelled()
    assert callable(estimator)
    found = {row.pair: row.estimate for row in calibrated(estimator, x, z, labels=labels)}
    assert list(found) == ["x;z", "x;x", "x;label", "x;shuffled z"]
    assert abs(found["x;shuffled z"].nats) < 0.1
    assert found["x;label"].nats == pytest.approx(math.log(4), abs=0.15)
    assert found["x;label"].nats < found["x;z"].nats < found["x;x"].nats
    assert all(e.cap is not None and e.nats <= e.cap and e.samples > 0 for e in found.values())


def test_without_labels_there_is_no_such_row() -> None:
    x, z, _ = labelled()
    assert [row.pair for row in calibrated(ksg_estimate, x, z)] == ["x;z", "x;x", "x;shuffled z"]


@pytest.mark.parametrize("wrong", [torch.zeros(3, dtype=torch.long), torch.zeros(N), torch.full((N,), -1)])
def test_labels_that_are_not_one_a_sample(wrong: torch.Tensor) -> None:
    x, z, _ = labelled()
    with pytest.raises(InputError, match=f"expected {N} whole labels from 0"):
        calibrated(ksg_estimate, x, z, labels=wrong)


@pytest.mark.parametrize("name", ["mine:steps=10", "infonce:steps=10", "club:steps=10", "ksg:k=5"])
def test_every_estimator_is_built_by_name(name: str) -> None:
    x, z = gaussians(1.0, 2, 200)
    found = ESTIMATORS.build(name, x=x, z=z, seed=0)
    assert found.name == name.partition(":")[0]
    assert found.note
    assert found.interval is not None
    with pytest.raises(UnknownNameError, match="Did you mean 'ksg'"):
        ESTIMATORS.build("kgs", x=x, z=z)
