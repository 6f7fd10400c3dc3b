"""Recipes: read from text, checked, and what their options do to a training."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from splitveil.core.errors import InputError, UnknownNameError
from splitveil.lab.cut import Split, trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.models.loader import load_model
from splitveil.lab.optimizers import Descent
from splitveil.lab.protection import protect
from splitveil.lab.recipe import RECIPES, Recipe, WhitenetRecipe, read_recipe
from splitveil.lab.training import IndexBatches
from splitveil.wire.codecs import CODECS

USUAL = Recipe(epochs=7, lr=3e-3)


def digits(count: int = 128) -> Dataset:
    data = load_data("digits")
    return Dataset("digits", data.train.take(np.arange(count)), data.test.take(np.arange(64)), data.classes)


def fresh() -> Split:
    model = load_model("small", shape=(1, 8, 8), classes=10, weights=None).model
    return trace(model, torch.zeros(2, 1, 8, 8)).split("relu2")


def same(a: Protected, b: Protected) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("text", "epochs", "lr", "expected"),
    [
        ("usual", None, None, USUAL),
        ("usual", 2, 0.1, Recipe(epochs=2, lr=0.1)),
        ("usual:epochs=3,average=0.9", None, None, Recipe(epochs=3, lr=3e-3, average=0.9)),
        ("usual:epochs=3", 2, None, Recipe(epochs=2, lr=3e-3)),
        ("whitenet", None, None, WhitenetRecipe()),
        ("whitenet:optimizer=sgd,batch=128", 4, None, WhitenetRecipe(optimizer="sgd", batch=128, epochs=4)),
    ],
)
def test_a_recipe_is_read(text: str, epochs: int | None, lr: float | None, expected: Recipe) -> None:
    assert read_recipe(text, epochs=epochs, lr=lr, usual=USUAL) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("usal", "Did you mean 'usual'"),
        ("usual:lr=0", "a learning rate above 0"),
        ("usual:batch=-1", "batch of at least 0"),
        ("usual:batch=x", "a whole number"),
        ("usual:smoothing=1", "expected smoothing"),
        ("usual:keep=first", "best or last, got 'first'"),
        ("usual:optimizer=adam", "Did you mean 'adamw'"),
        ("usual:momentum=1", "expected momentum and average"),
        ("usual:warmth=1", "no option 'warmth'"),
    ],
)
def test_what_is_wrong_is_said(text: str, told: str) -> None:
    with pytest.raises((InputError, UnknownNameError), match=told):
        read_recipe(text, epochs=None, lr=None, usual=USUAL)


@pytest.mark.parametrize("name", RECIPES.names())
def test_every_recipe_can_be_built_and_differs_by_its_options(name: str) -> None:
    recipe = read_recipe(name, epochs=None, lr=None, usual=USUAL)
    assert replace(recipe, epochs=recipe.epochs + 1) != recipe
    assert recipe.descent == Descent(
        optimizer=recipe.optimizer, momentum=recipe.momentum, weight_decay=recipe.weight_decay, average=recipe.average
    )


@pytest.mark.parametrize(("count", "size"), [(100, 32), (1024, 32), (3200, 100), (50_000, 128)])
def test_the_usual_batch_is_a_32nd_within_limits(count: int, size: int) -> None:
    assert USUAL.batch_of(count) == size
    assert replace(USUAL, batch=5).batch_of(count) == 5


def test_a_usual_recipe_trains_what_epochs_and_rate_train() -> None:
    by_recipe, _ = protect(fresh(), "none", "raw", digits(), recipe=Recipe(epochs=2, lr=4e-3))
    plainly, _ = protect(fresh(), "none", "raw", digits(), epochs=2, lr=4e-3)
    assert same(by_recipe, plainly)


@pytest.mark.parametrize(
    "options", [{"batch": 16}, {"smoothing": 0.2}, {"average": 0.9}, {"weight_decay": 0.5}, {"optimizer": "sgd"}]
)
def test_every_option_changes_the_weights(options: dict[str, Any]) -> None:
    usual = Recipe(epochs=1, lr=4e-3, keep="last")
    assert not same(
        protect(fresh(), "none", "raw", digits(), recipe=usual)[0],
        protect(fresh(), "none", "raw", digits(), recipe=replace(usual, **options))[0],
    )


def test_keeping_the_last_epoch_trains_on_every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, watched = list[int](), list[bool]()
    real = IndexBatches.epoch

    def epoch(self: IndexBatches, draws: torch.Generator) -> Any:
        counts.append(self.count)
        return real(self, draws)

    monkeypatch.setattr(IndexBatches, "epoch", epoch)
    for keep in ("best", "last"):
        recipe = Recipe(epochs=2, lr=4e-3, keep=keep)
        _, history = protect(
            fresh(), "none", "raw", digits(), recipe=recipe, watch=lambda p: watched.append(p.training)
        )
        assert all(math.isnan(score) for score in history.scores) == (keep == "last")
    assert counts == [128 - 12] * 2 + [128] * 2
    assert watched == [False] * 4


def test_smoothing_is_cross_entropy_with_smoothed_labels() -> None:
    protected = Protected(fresh(), DEFENSES.build("none"), CODECS.build("raw"))
    x, y = torch.rand(5, 1, 8, 8), torch.arange(5)
    logits: Tensor = protected.split(x)
    protected.smoothing = 0.2
    assert torch.allclose(protected.loss(x, y), F.cross_entropy(logits, y, label_smoothing=0.2))
    protected.smoothing = 0.0
    assert torch.equal(protected.loss(x, y), F.cross_entropy(logits, y))
