"""A perceptual loss that an adversary can afford: distance in the features of a classifier of its own images.

LPIPS (Zhang et al. 2018) compares unit-normalised channels of an ImageNet net; an adversary with a few thousand
labelled images trains a small classifier on them instead and compares in that. Without labels its features are random,
which is a weaker but usable perceptual loss.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.lab.attacks.base import frozen
from splitveil.lab.attacks.view import Aux
from splitveil.lab.training import IndexBatches, fit

WIDTHS = (32, 64, 128)
STEPS, BATCH, RATE = 400, 64, 2e-3


class Eye(nn.Module):
    """A small norm-free classifier whose stages are looked at. x: (N, C, H, W) in [0, 1]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        widths = (channels, *WIDTHS)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU(), nn.Conv2d(b, b, 3, 1, 1), nn.ReLU())
            for a, b in pairwise(widths)
        )
        self.head = nn.Linear(WIDTHS[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def features(self, x: Tensor) -> list[Tensor]:
        """One map a stage, each position of unit length."""
        x, found = 2 * x - 1, []
        for stage in self.stages:
            x = stage(x)
            found.append(F.normalize(x.float(), dim=1))
        return found

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Scalar loss of the classification. y: (N,)."""
        x = 2 * x - 1
        for stage in self.stages:
            x = stage(x)
        return F.cross_entropy(self.head(x.mean((2, 3))).float(), y)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean squared distance of the features of two batches of images, a scalar."""
        pairs = zip(self.features(x), self.features(y), strict=True)
        return torch.stack([(a - b).square().sum(1).mean() for a, b in pairs]).mean()


def trained_eye(aux: Aux, seed: int) -> Eye:
    """An `Eye` trained on the adversary's labelled images; of random weights where none has a label."""
    torch.manual_seed(seed)
    known = (aux.y >= 0).nonzero()[:, 0]
    eye = Eye(aux.x.shape[1], max(2, int(aux.y.max()) + 1)).to(aux.x.device)
    if len(known) >= BATCH:
        batches = IndexBatches(len(known), BATCH, lambda i, _: (aux.images(known[i]), aux.y[known[i]]))
        fit(eye, batches, epochs=max(1, round(STEPS / len(batches))), lr=RATE, seed=seed, what="perceptual features")
    frozen(eye)
    return eye
