"""A bundle whose answers name their question exactly, so that an answer in the wrong place cannot look right.

Features are whole numbers from 0 to 15; six of them spell a number of 24 bits, the others are drawn. The cloud half is
a linear map with whole weights: logit 0 is the number, the seven others are checks over all features. All partial sums
stay below 2^24, so float32 is exact in any order of summation and at any batch size.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from splitveil.lab.cut import halves
from splitveil.lab.defenses.base import Defense, Protected
from splitveil.lab.defenses.none import Undefended
from splitveil.lab.export import save
from splitveil.lab.seeds import derive
from splitveil.wire.bundle import Bundle
from splitveil.wire.codecs.raw import Raw
from splitveil.wire.contract import RequestRules

IMAGE, CUT, LOGITS, DIGITS, BASE = (3, 16, 16), (8, 4, 4), 8, 6, 16
SIZE = 8 * 4 * 4
Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Exact:
    """The bundle and what it must answer."""

    bundle: Bundle
    weights: NDArray[np.int64]
    seed: int

    def questions(self, first: int, rows: int) -> Rows:
        """Features (rows, 8, 4, 4) of the numbers from `first` on, below 2^24."""
        numbers = np.arange(first, first + rows)
        source = np.random.default_rng(derive(self.seed, first, rows))
        z = source.integers(0, BASE, (rows, SIZE))
        z[:, :DIGITS] = numbers[:, None] // BASE ** np.arange(DIGITS) % BASE
        return z.reshape(rows, *CUT).astype(np.float32)

    def answers(self, z: Rows) -> Rows:
        """Logits (rows, 8), exact."""
        return (z.reshape(len(z), SIZE).astype(np.int64) @ self.weights.T).astype(np.float32)

    def largest_message(self, max_batch: int = 64) -> int:
        """Bytes of the largest message that a server of it takes."""
        return RequestRules(self.bundle.manifest, max_batch).max_message

    def right(self, z: Rows, logits: NDArray[np.float32]) -> bool:
        """Whether these are the answers to these, bit for bit."""
        return bool(np.array_equal(logits, self.answers(z)))


def exact_bundle(folder: Path, seed: int = 0, defense: Defense | None = None) -> Exact:
    """Write it. A defence of the edge half (for the contract to be asked for) does not touch the cloud half."""
    torch.manual_seed(seed)
    weights = np.random.default_rng(seed).integers(-8, 9, (LOGITS, SIZE))
    weights[0] = 0
    weights[0, :DIGITS] = BASE ** np.arange(DIGITS)
    linear = nn.Linear(SIZE, LOGITS, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weights))
    edge = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU())
    images = torch.rand(8, *IMAGE)
    split = halves(edge, nn.Sequential(nn.Flatten(), linear), images)
    defense = defense or Undefended()
    with torch.no_grad():
        defense.calibrate(split.edge(images))
    bundle = save(
        Protected(split, defense, Raw()).eval(), folder, name="exact", model_spec="by hand", image_shape=IMAGE,
        classes=[f"check {i}" for i in range(LOGITS)],
    )  # fmt: skip
    return Exact(bundle, weights, seed)
