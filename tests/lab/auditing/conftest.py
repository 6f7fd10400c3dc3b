"""A small trained split to audit."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from splitveil.lab.auditing import Subject
from splitveil.lab.auditing.suites import Suite, custom_suite
from splitveil.lab.cut import Traced, trace
from splitveil.lab.data import Dataset, Images, load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.models.loader import load_model
from splitveil.lab.protection import protect
from splitveil.wire.codecs import CODECS

from .fakes import fakes as fakes

QUICK: Suite = custom_suite(["decoder:size=tiny,epochs=2,steps=20", "mle:steps=4"])


@dataclass(frozen=True)
class Trained:
    """Everything that an audit of the small net on real digits needs."""

    data: Dataset
    traced: Traced
    weights: dict[str, torch.Tensor]

    def subject(self, *at: str) -> Subject:
        return Subject.of_model(self.traced, at, model="small", weights="test")

    def protected(self, at: str, defense: str, codec: str) -> Protected:
        return protect(self.traced.split(at), DEFENSES.build(defense), CODECS.build(codec), self.data)[0]


@pytest.fixture(scope="session")
def trained() -> Trained:
    digits = load_data("digits")
    index = np.arange(200)
    data = Dataset("digits", digits.train.take(np.arange(600)), digits.test.take(index), digits.classes)
    model = load_model("small", shape=data.shape, classes=10, weights=None).model
    example = torch.zeros(2, *data.shape)
    first = trace(model, example).split("relu1")
    protected, _ = protect(first, DEFENSES.build("none"), CODECS.build("raw"), data, epochs=8)
    state = protected.split.edge.state_dict() | protected.split.cloud.state_dict()
    model.load_state_dict(state)
    return Trained(data, trace(model.eval(), example), state)


@pytest.fixture
def foreign() -> Dataset:
    """Images that share nothing with the digits."""
    draws = np.random.default_rng(0)
    images = Images(draws.integers(0, 256, (80, 1, 8, 8), dtype=np.uint8), draws.integers(0, 10, 80))
    return Dataset("noise", images.take(np.arange(60)), images.take(np.arange(60, 80)), tuple("0123456789"))
