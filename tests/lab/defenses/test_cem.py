"""The loss of conditional entropy maximisation against hand-computed values, and what it is for."""

import math
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses.base import Batch
from splitveil.lab.defenses.cem import ConditionalEntropy
from splitveil.lab.metrics.bounds.cem import clusters, information_bound
from splitveil.lab.models.loader import load_model
from splitveil.lab.protection import protect

TWO = torch.tensor([[1.0, 2.0], [3.0, 2.0], [-1.0, -5.0], [-1.0, -5.5]])
"""Class 0 with a variance of 1 in one element and none in the other, class 1 with less."""
LABELS = torch.tensor([0, 0, 1, 1])


def batch(h: Tensor, y: Tensor) -> Batch:
    return Batch(torch.zeros(len(h), 1, 4, 4), y, h, h, torch.zeros(len(h), 3), nn.Identity())


def begun(form: str, sigma: float = 0.5, count: int = 1) -> ConditionalEntropy:
    defense = ConditionalEntropy(form=form, sigma=sigma, count=count, weight=1.0)
    defense.begin(TWO, LABELS, 3)
    return defense


def log_ratio(v: float, sigma: float = 0.5) -> float:
    return max(0.0, math.log(v + 0.01) - math.log(0.125 * sigma**2 + 0.01))


def test_both_forms_by_hand() -> None:
    """The batch is the sample, so that remembered and new variances agree."""
    isotropic = (log_ratio(0.5) + log_ratio(0.0625 / 2)) / 2
    assert begun("isotropic").conditional_entropy(TWO, LABELS).item() == pytest.approx(isotropic, rel=1e-5)
    single = ((log_ratio(1.0) + log_ratio(0.0)) / 2 + (log_ratio(0.0) + log_ratio(0.0625)) / 2) / 2
    assert begun("per_dimension").conditional_entropy(TWO, LABELS).item() == pytest.approx(single, rel=1e-5)
    assert begun("isotropic", sigma=3.0).conditional_entropy(TWO, LABELS).item() == 0


def test_a_batch_is_blended_with_what_is_remembered_and_clusters_follow() -> None:
    defense = ConditionalEntropy(sigma=0.5, count=1, weight=1.0)
    defense.begin(torch.tensor([[1.0], [-1.0]]).repeat(50, 1), torch.zeros(100, dtype=torch.long), 3)
    u = torch.tensor([[2.0], [4.0]])
    pull = 10 * 2 / 100
    v = pull * (4 + 16) / 2 + (1 - pull) * 1
    assert defense.conditional_entropy(u, torch.zeros(2, dtype=torch.long)).item() == pytest.approx(
        log_ratio(v), rel=1e-5
    )
    assert defense.get_buffer("variances")[0].item() == pytest.approx(v, rel=1e-5)
    assert defense.get_buffer("centres")[0].item() == pytest.approx(2 / 100 * 3, rel=1e-5)
    # A class that the sample lacked has no cluster and costs nothing.
    assert defense.conditional_entropy(u, torch.full((2,), 2)).item() == 0


def test_clusters_are_weighed_within_their_class() -> None:
    defense = ConditionalEntropy(sigma=0.1, count=2, weight=1.0)
    u = torch.tensor([[0.0], [0.2], [10.0], [10.4], [10.0], [10.4]])
    y = torch.zeros(6, dtype=torch.long)
    defense.begin(u, y, 1)
    wanted = 2 / 6 * log_ratio(0.01, 0.1) + 4 / 6 * log_ratio(0.04, 0.1)
    assert defense.conditional_entropy(u, y).item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("form", ["isotropic", "per_dimension"])
def test_its_gradient_pulls_together_and_knows_no_scale(form: str) -> None:
    draws = torch.Generator().manual_seed(0)
    h, y = torch.rand(64, 4, 4, 4, generator=draws), torch.arange(64) % 4
    losses = []
    for scale in (1.0, 0.1):
        defense = ConditionalEntropy(form=form, weight=1.0, clip=1e4, sigma=0.1)
        defense.calibrate(h)  # the clip stays where it was: what an edge gains that shrinks while it trains
        scaled = (scale * h).requires_grad_()
        defense.begin(defense._units(scaled.detach()), y, 4)
        loss = defense.penalty(batch(scaled, y))
        (slope,) = torch.autograd.grad(loss, scaled)
        assert slope.abs().max() > 0
        assert abs((slope * scaled).sum().item()) < 1e-4 * (slope * scaled).abs().sum().item()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0] > 0


def test_dead_elements_do_not_hide_the_live_ones() -> None:
    """Published form: the mean variance is in units of the mean square, which dead elements lower as much."""
    draws = torch.Generator().manual_seed(0)
    h, y = torch.randn(64, 8, generator=draws), torch.zeros(64, dtype=torch.long)
    found = []
    for width in (8, 80):
        defense = ConditionalEntropy(weight=1.0, clip=1e4, count=2)
        wide = torch.cat([h, torch.zeros(64, width - 8)], 1)
        defense.calibrate(wide)
        defense.begin(defense._units(wide), y, 1)
        found.append(defense.penalty(batch(wide, y)).item())
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_training_lowers_the_bound_of_what_the_answer_tells() -> None:
    data = load_data("digits")
    few = Dataset("digits", data.train.take(np.arange(512)), data.test.take(np.arange(64)), data.classes)
    x, y = torch.from_numpy(few.train.x).float() / 255, torch.from_numpy(few.train.y)
    told = []
    form: Literal["diagonal"] = "diagonal"
    for weight in (0.0, 3.0):
        torch.manual_seed(0)
        model = load_model("small", shape=few.shape, classes=10, weights=None).model
        split = trace(model, torch.zeros(2, *few.shape)).split("relu2")
        defense = ConditionalEntropy(weight=weight)
        protected, _ = protect(split, defense, "raw", few, epochs=3)
        with torch.no_grad():
            z = defense.mean(protected.split.edge(x))
        spread = defense.spread(z)
        assert spread is not None
        told.append(information_bound(z, spread, clusters(z, labels=y), form=form))
        assert not {"centres", "variances", "sizes"} & set(defense.state_dict())
    assert told[1] < 0.9 * told[0]


@pytest.mark.parametrize("form", ["isotropic", "per_dimension"])
def test_half_precision_and_silent_features_do_no_harm(form: str) -> None:
    h, y = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 4
    defense = ConditionalEntropy(form=form, weight=1.0)
    defense.calibrate(h)
    defense.begin(defense._units(h), y, 4)
    exact = defense.conditional_entropy(defense._units(h), y).item()
    defense.begin(defense._units(h), y, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = defense.penalty(batch(h.bfloat16(), y))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact, rel=0.02)
    silent = torch.zeros(64, 8, requires_grad=True)
    (slope,) = torch.autograd.grad(defense.penalty(batch(silent, y)), silent)
    assert slope.isfinite().all()


def test_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match="isotropic or per_dimension"):
        ConditionalEntropy(form="full")
    with pytest.raises(InputError, match="threshold"):
        ConditionalEntropy(threshold=0.0)
