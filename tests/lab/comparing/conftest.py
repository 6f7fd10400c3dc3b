"""A comparison of an untrained net's defences, small enough for a test."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from splitveil.core.records import Comparison
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.comparing import compare
from splitveil.lab.cut import Split, trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.models.loader import load_model


@pytest.fixture(scope="session")
def data() -> Dataset:
    digits = load_data("digits")
    return Dataset("digits", digits.train.take(np.arange(320)), digits.test.take(np.arange(150)), digits.classes)


@pytest.fixture(scope="session")
def fresh(data: Dataset) -> Callable[[int], Split]:
    def make(seed: int) -> Split:
        model = load_model("small", shape=data.shape, classes=10, weights=None).model
        return trace(model, torch.zeros(2, *data.shape)).split("relu2")

    return make


Compare = Callable[..., Comparison]


ASKED = ("noise", "noise:sigma=200.0", "uniform:bits=3")


@pytest.fixture(scope="session")
def quick(data: Dataset, fresh: Callable[[int], Split]) -> Compare:
    def run(out: Path, *defenses: str, resume: bool = False) -> Comparison:
        return compare(
            fresh, data, model="small", weights="seed 0", defenses=defenses, out=out, drops=(15.0,),
            suite=custom_suite(["decoder:size=tiny,epochs=1,steps=5"]), n=20, seeds=(0,), trials=2,
            epochs=4, lr=1e-2, resume=resume,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def compared(quick: Compare, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    """A comparison and its folder, made once and not to be written to."""
    out = tmp_path_factory.mktemp("compared") / "c"
    return quick(out, *ASKED), out
