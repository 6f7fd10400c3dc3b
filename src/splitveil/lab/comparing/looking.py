"""What one trained split is, without an attack: which test images it answers correctly, how tight, what it costs."""

import json
from pathlib import Path

import torch
from torch import Tensor

from splitveil.lab.accelerator import Accelerator
from splitveil.lab.comparing.costs import edge_cost
from splitveil.lab.comparing.setting import Setting
from splitveil.lab.comparing.weights import restored
from splitveil.lab.cut import Split
from splitveil.lab.data.base import Dataset
from splitveil.lab.defenses.base import Protected
from splitveil.lab.images import as_floats
from splitveil.lab.metrics.geometry import class_radius
from splitveil.lab.protection import right_of
from splitveil.lab.seeds import derive

IMAGES, AT_ONCE, LEAST = 2000, 250, 5


def looked(
    start: Split, setting: Setting, weights: dict[str, Tensor], epochs: int, data: Dataset, seed: int, _: Path | None
) -> tuple[str, dict[str, Tensor]]:
    """``radius``, ``macs``, ``params`` and ``payload`` as JSON, and ``right``: (N,) bool of the test images."""
    protected = restored(start, setting, weights, epochs)
    right = right_of(protected, data.test, seed)
    cost = edge_cost(protected, data.shape)
    told = {
        "radius": _radius(protected, data, seed), "macs": cost.macs, "params": cost.params, "payload": cost.payload,
    }  # fmt: skip
    return json.dumps(told), {"right": right}


def _radius(protected: Protected, data: Dataset, seed: int) -> float | None:
    """R_c^2 / D of what leaves the device for test images; None where the classes have too few."""
    x, y = torch.from_numpy(data.test.x[:IMAGES]), torch.from_numpy(data.test.y[:IMAGES])
    if int(torch.bincount(y[y >= 0], minlength=1).max()) < LEAST:
        return None
    torch.manual_seed(derive(seed, "radius"))
    with Accelerator.chosen().used(protected) as where, torch.no_grad():
        parts = (as_floats(part.to(where.device)) for part in x.split(AT_ONCE))
        z = [protected.observe(protected.split.edge(part)) for part in parts]
    return class_radius(z, y, len(data.classes), least=LEAST, resamples=0).per_dimension
