"""A net of the table with weights from a file, traced, as most benchmarks start from it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from splitveil.lab.cut import Traced, trace
from splitveil.lab.data import Dataset
from splitveil.lab.models.loader import load_model


@dataclass(frozen=True, slots=True)
class Net:
    """Traced for images of a data set, and where its weights are from."""

    traced: Traced
    weights: str


def load_net(model: str, data: Dataset, weights: Path | None, seed: int = 0) -> Net:
    """The net for images of `data`; without weights they are drawn with `seed`."""
    loaded = load_model(model, shape=data.shape, classes=len(data.classes), weights=weights, seed=seed)
    return Net(trace(loaded.model, torch.zeros(2, *data.shape)), loaded.weights)
