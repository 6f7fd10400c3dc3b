"""One training of a setting, and the accuracy that it is tuned by."""

from pathlib import Path

import torch

from splitveil.core.errors import InputError
from splitveil.lab.comparing.setting import Setting
from splitveil.lab.cut import Split
from splitveil.lab.data.base import Dataset
from splitveil.lab.defenses.base import Protected
from splitveil.lab.protection import accuracy_of, protect, validation_accuracy
from splitveil.lab.recipe import Recipe
from splitveil.lab.seeds import derive


def trained(
    split: Split, setting: Setting, data: Dataset, *, recipe: Recipe, seed: int, tuned: bool,
    checkpoint: Path | None,
) -> tuple[Protected, float]:  # fmt: skip
    """The trained split, and its accuracy.

    Args:
        split: fresh halves.
        setting: what to train.
        data: its training part.
        recipe: of the training.
        seed: of every draw.
        tuned: by the test part of `data`; else by the images of the training part that `protect` sets aside.
        checkpoint: to go on from.

    Raises:
        InputError: it is to be tuned by training images, and its recipe sets none aside.
    """
    check_tunable(recipe, tuned=tuned)
    torch.manual_seed(derive(seed, "training"))  # what a defence installs draws its weights from here
    protected, _ = protect(
        split,
        setting.defense,
        setting.codec,
        data,
        recipe=recipe,
        seed=seed,
        checkpoint=checkpoint,
        resume=True,
    )
    return protected, accuracy_of(protected, data, seed) if tuned else validation_accuracy(protected, data, seed)


def check_tunable(recipe: Recipe, *, tuned: bool) -> None:
    """Refuse a recipe that leaves no images to tune by. tuned: there are others.

    Raises:
        InputError: it trains on all of them.
    """
    if recipe.keep == "last" and not tuned:
        raise InputError(
            "expected images to tune by, got a recipe that trains on all of them; give tuning images or use keep=best."
        )
