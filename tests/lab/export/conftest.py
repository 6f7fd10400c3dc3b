"""One noisy bundle of a net with a residual block, and images with labels for it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splitveil.lab.cut import split
from splitveil.lab.data import Dataset
from splitveil.lab.data.base import Images
from splitveil.lab.defenses.base import Protected
from splitveil.lab.defenses.noise import GaussianNoise
from splitveil.lab.export import save
from splitveil.wire.bundle import Bundle, with_card
from splitveil.wire.codecs.uniform import Uniform
from tests.wire.bundle.test_folder import AUDITED

SHAPE = (3, 16, 16)


class Residual(nn.Module):
    """A stem, a block with a shortcut, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.block = nn.Conv2d(8, 8, 3, padding=1)
        self.late = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        z = self.bn(self.stem(x)).relu()
        z = (self.block(z) + z).relu()
        out: Tensor = self.head(self.late(z).mean((2, 3)))
        return out


@pytest.fixture(scope="session")
def data() -> Dataset:
    """Dark images to train with, bright ones to test with: whose range set the scales can be told."""
    draws = np.random.default_rng(0)
    train, test = draws.integers(0, 100, (48, *SHAPE), np.uint8), draws.integers(0, 256, (40, *SHAPE), np.uint8)
    labels = draws.integers(0, 4, 48)
    return Dataset("drawn", Images(train, labels), Images(test, labels[:40]), ("a", "b", "c", "d"))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Bundle:
    torch.manual_seed(0)
    x = torch.from_numpy(data.train.x).float() / 255
    halved = split(Residual().eval(), "late", x)
    defense = GaussianNoise(sigma=0.2)
    with torch.no_grad():
        defense.calibrate(halved.edge(x))
        protected = Protected(halved, defense, Uniform(8).calibrate(defense(halved.edge(x)))).eval()
    folder = tmp_path_factory.mktemp("export") / "whole"
    made = save(protected, folder, name="Tiny_net", model_spec="by hand", image_shape=SHAPE, classes=data.classes)
    return with_card(made, AUDITED)
