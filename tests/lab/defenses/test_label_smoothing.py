import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splitveil.lab.cut import trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses.base import Batch
from splitveil.lab.defenses.label_smoothing import EVERY, KEPT, LabelSmoothing
from splitveil.lab.metrics.geometry import class_radius
from splitveil.lab.models.loader import load_model
from splitveil.lab.protection import protect


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(z: Tensor, y: Tensor) -> Batch:
    return Batch(draws(len(z), 1, 8, 8), y, z, z, draws(len(z), 3), nn.Identity())


def test_it_looks_once_in_a_while_and_keeps_a_running_mean() -> None:
    defense, y = LabelSmoothing(), torch.arange(24) % 3
    one, two = draws(24, 4, 2, 2), draws(24, 4, 2, 2, seed=1) + 3 * torch.nn.functional.one_hot(y, 4)[:, :, None, None]
    assert defense.radius.isnan()
    assert defense.radii == []
    for step in range(EVERY + 1):
        assert defense.penalty(batch(one if step < EVERY else two, y)).item() == 0
    first, second = (class_radius(z, y, 3, resamples=0).per_dimension for z in (one, two))
    assert second < 0.7 * first
    wanted = KEPT * first + (1 - KEPT) * second
    assert defense.radii == pytest.approx([first, wanted], rel=1e-5)
    assert float(defense.radius) == pytest.approx(wanted, rel=1e-5)


def test_scaling_the_features_moves_nothing() -> None:
    one, ten, z, y = LabelSmoothing(), LabelSmoothing(), draws(24, 4, 2, 2), torch.arange(24) % 3
    one.penalty(batch(z, y))
    ten.penalty(batch(10 * z, y))
    assert ten.radii == pytest.approx(one.radii, rel=1e-4)


def test_a_batch_without_two_of_a_class_tells_nothing() -> None:
    defense = LabelSmoothing()
    defense.penalty(batch(draws(3, 4, 2, 2), torch.arange(3)))
    assert defense.radii == []
    assert defense.radius.isnan()


def test_looking_changes_no_gradient_and_ships_nothing() -> None:
    defense, z = LabelSmoothing(), draws(24, 4, 2, 2).requires_grad_(True)
    assert not defense.penalty(batch(z, torch.arange(24) % 3)).requires_grad
    assert defense.state_dict() == {}
    assert copy.deepcopy(defense).radii == defense.radii


def test_the_course_of_training_can_be_read() -> None:
    """Mechanics and fall only: at this size smoothing does not make the radius smaller (see the class)."""
    data = load_data("digits")
    few = Dataset("digits", data.train.take(np.arange(512)), data.test.take(np.arange(64)), data.classes)
    torch.manual_seed(0)
    model = load_model("small", shape=few.shape, classes=10, weights=None).model
    split = trace(model, torch.zeros(2, *few.shape)).split("pool2")
    protected, history = protect(split, "label_smoothing:alpha=0.3", "raw", few, epochs=8)
    seen = protected.defense
    assert isinstance(seen, LabelSmoothing)
    steps = 8 * -(-(512 - 51) // 32)
    assert len(seen.radii) == -(-steps // EVERY)
    assert seen.radii[-1] == pytest.approx(float(seen.radius))
    assert seen.radii[-1] < seen.radii[0], "classes gather while the net learns"
    assert history.scores[-1] > 0.5
