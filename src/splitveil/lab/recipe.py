"""`Recipe`: how something is trained, and the recipes that have names."""

import math
from dataclasses import dataclass, replace

from splitveil.core.errors import InputError
from splitveil.core.registry import Registry, Spec
from splitveil.lab.optimizers import Descent

FRESH, SLOW = 2e-3, 5e-4
"""Peak learning rates of what begins with random weights, and of what was trained before."""
BATCH = range(32, 129)
"""A 32nd of the training images, within this range."""
KEPT = ("best", "last")
USUAL = "usual"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Epochs and peak learning rate; AdamW, the most accurate epoch kept, unless it says otherwise.

    Args:
        epochs: 0 trains nothing.
        lr: peak learning rate.
        optimizer: adamw, adamw-fused, sgd or muon.
        momentum: of sgd and muon.
        weight_decay: on weights of two dimensions or more.
        average: how much of the running mean of the weights each step keeps, such as 0.99; 0 takes the weights as they
            are.
        batch: images in a step; 0 takes a 32nd of the training images, from 32 to 128.
        smoothing: share of the task's loss that pulls to no class at all (Szegedy et al. 2016).
        keep: ``best``: the epoch most accurate on a tenth of the training images, which is set aside; ``last``: all
            images are trained on, and the last epoch is kept.

    Raises:
        InputError: a number out of range, or no such optimizer.
    """

    epochs: int
    lr: float = SLOW
    optimizer: str = "adamw"
    momentum: float = 0.9
    weight_decay: float = 1e-2
    average: float = 0.0
    batch: int = 0
    smoothing: float = 0.0
    keep: str = "best"

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch < 0:
            raise InputError(
                f"expected epochs and a batch of at least 0, got {self.epochs} and {self.batch}; use batch=128."
            )
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise InputError(f"expected a learning rate above 0, got {self.lr:g}; use lr=0.001.")
        if not 0 <= self.smoothing < 1:
            raise InputError(f"expected smoothing in [0, 1), got {self.smoothing}; use smoothing=0.1.")
        if self.keep not in KEPT:
            raise InputError(f"expected keep to be best or last, got {self.keep!r}; use keep=best.")
        _ = self.descent

    @property
    def descent(self) -> Descent:
        """How its weights move."""
        return Descent(
            optimizer=self.optimizer, momentum=self.momentum, weight_decay=self.weight_decay, average=self.average
        )

    def batch_of(self, count: int) -> int:
        """Images in a step where `count` are trained on."""
        return self.batch or min(BATCH[-1], max(BATCH[0], count // 32))


@dataclass(frozen=True, kw_only=True)
class WhitenetRecipe(Recipe):
    """The reference net's own: from nothing in a quarter of an hour on two cores."""

    epochs: int = 16
    lr: float = 0.15
    optimizer: str = "muon"
    momentum: float = 0.7
    weight_decay: float = 1e-2
    average: float = 0.99
    batch: int = 512
    smoothing: float = 0.1
    keep: str = "last"


RECIPES: Registry[Recipe] = Registry(
    "recipe",
    {USUAL: "splitveil.lab.recipe:Recipe", "whitenet": "splitveil.lab.recipe:WhitenetRecipe"},
)
"""How ``--recipe NAME[:k=v,...]`` is read."""


def usual_rate(*, trained: bool) -> float:
    """Peak learning rate where nobody says; trained: whether there are weights to begin with."""
    return SLOW if trained else FRESH


def read_recipe(text: str, *, epochs: int | None, lr: float | None, usual: Recipe) -> Recipe:
    """The recipe that a spec names.

    Args:
        text: NAME[:k=v,...].
        epochs: instead of its own, where given.
        lr: instead of its own, where given.
        usual: epochs and rate of `USUAL` where nobody gives them.

    Raises:
        UnknownNameError: no such recipe.
        InputError: an option that it does not have, or a value out of range.
    """
    spec = Spec.parse(text)
    known = {"epochs": usual.epochs, "lr": usual.lr} if spec.name == USUAL else {}
    found = RECIPES.build(Spec(spec.name, {**known, **spec.options}))
    return replace(found, epochs=found.epochs if epochs is None else epochs, lr=found.lr if lr is None else lr)
