"""Attribute inference: a head trained on features to read a label that they were never meant to carry.

The label may be the task's own (prediction theft) or any other that the adversary knows of its images, such as an
identity or a body type. A ridge regression in closed form comes first, a small net second; both learn from defended
features with fresh noise, and the one that is better on images that the adversary set aside is kept.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.attacks.base import LabelAttack, seed_view
from splitveil.lab.attacks.parts.blocks import ScaledBlock
from splitveil.lab.attacks.parts.features import ChannelScale, as_map, map_shape
from splitveil.lab.attacks.view import Knows, View
from splitveil.lab.seeds import generator
from splitveil.lab.training import IndexBatches, fit, infer, native_precision

HEADS = ("auto", "linear", "mlp")
WIDEST = 2048
"""Numbers a sample that a linear head reads."""
PROJECTED = 16_384
"""Numbers a sample that a random projection reads."""
PENALTIES = (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Of the ridge, in units of the mean square of an input."""
STEPS = 400
"""Optimiser steps of the net at least."""
DRAWS = 4
"""Draws of the noise that each image lends to the ridge."""


class Embedding(nn.Module):
    """Features as at most `WIDEST` numbers a sample, each in units of its own spread. z: (N, *cut) -> (N, D).

    All of them where they are few; else averages over squares of the map beside random projections of all.

    Args:
        z: (n, *cut), features of the adversary's images.
        draws: of the projection.
    """

    projection: Tensor

    def __init__(self, z: Tensor, draws: torch.Generator) -> None:
        super().__init__()
        c, h, w = map_shape(tuple(z.shape[1:]))
        self.first = ChannelScale(z)
        self.fine = self._side(c, h, w, PROJECTED)
        self.coarse = self._side(c, h, w, WIDEST // 2)
        wide = c * math.prod(self.fine)
        kept = 0 if wide <= WIDEST else WIDEST - c * math.prod(self.coarse) if c <= WIDEST // 2 else WIDEST
        self.pooled = 0 < kept < WIDEST
        self.register_buffer("projection", (torch.randn(wide, kept, generator=draws) * (wide**-0.5)).to(z.device))
        self.last: nn.Module = nn.Identity()
        self.last = ChannelScale(torch.cat([self(part) for part in z.split(512)]))

    def forward(self, z: Tensor) -> Tensor:
        grid = as_map(self.first(z))
        flat = F.adaptive_avg_pool2d(grid, self.fine).flatten(1)
        parts = [flat @ self.projection] if self.projection.shape[1] else [flat]
        if self.pooled:
            parts.append(F.adaptive_avg_pool2d(grid, self.coarse).flatten(1))
        out: Tensor = self.last(torch.cat(parts, 1))
        return out

    @staticmethod
    def _side(c: int, h: int, w: int, most: int) -> tuple[int, int]:
        """The finest grid of halvings with at most so many numbers."""
        while c * h * w > most and h * w > 1:
            h, w = math.ceil(h / 2), math.ceil(w / 2)
        return h, w


class Head(nn.Module):
    """Features to scores: convolutions down to 8 x 8 and a mean over positions; two hidden layers for flat features.

    Args:
        features: shape of z for one sample.
        classes: K.
        width: channels, or hidden units by four.
    """

    def __init__(self, features: tuple[int, ...], classes: int, width: int = 64) -> None:
        super().__init__()
        c, h, w = map_shape(features)
        layers: list[nn.Module] = []
        if h * w > 1:
            stride = 1 if max(h, w) <= 8 else 2
            layers += [nn.Conv2d(c, width, 3, stride, 1), ScaledBlock(width, 2)]
            for _ in range(max(0, math.ceil(math.log2(max(h, w) / 8)) - 1)):
                layers += [nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1), ScaledBlock(width, 2)]
            layers += [ScaledBlock(width, 2), nn.ReLU(), Pool(), nn.Dropout(0.3), nn.Linear(5 * width, classes)]
        else:
            layers += [nn.Flatten(), nn.Linear(c, 4 * width), nn.ReLU(), nn.Dropout(0.3)]
            layers += [nn.Linear(4 * width, 4 * width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(4 * width, classes)]
        self.body = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """z: (N, *cut), normalised -> (N, K)."""
        out: Tensor = self.body(as_map(z).contiguous(memory_format=torch.channels_last))
        return out


class Pool(nn.Module):
    """Means over the whole map and over its quarters. (N, W, h, w) -> (N, 5 W)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.adaptive_avg_pool2d(x, 1).flatten(1), F.adaptive_avg_pool2d(x, 2).flatten(1)], 1)


class HeadLoss(nn.Module):
    """Cross-entropy with a little smoothing: (z, y) -> scalar."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.head(z).float(), y, label_smoothing=0.05)


class Ridge:
    """Linear scores by ridge regression on one-hot labels, from sums over batches, so that noise is averaged.

    Args:
        width: numbers a sample.
        classes: K.
        device: of the samples.
    """

    def __init__(self, width: int, classes: int, device: torch.device | None = None) -> None:
        self.gram = torch.zeros(width + 1, width + 1, device=device)
        self.cross = torch.zeros(width + 1, classes, device=device)

    def add(self, a: Tensor, targets: Tensor) -> None:
        """a: (n, D); targets: (n, K)."""
        a = torch.cat([a, a.new_ones(len(a), 1)], 1)
        self.gram += a.T @ a
        self.cross += a.T @ targets

    def solve(self, penalty: float) -> Callable[[Tensor], Tensor]:
        """Scores (n, K) of inputs (n, D)."""
        unit = float(self.gram.diagonal()[:-1].mean().clamp_min(1e-6))
        ridge = torch.full((len(self.gram),), penalty * unit, device=self.gram.device)
        ridge[-1] = 1e-6 * float(self.gram[-1, -1])
        weight = torch.cholesky_solve(self.cross, torch.linalg.cholesky(self.gram + ridge.diag()))
        return lambda a: a @ weight[:-1] + weight[-1]


@dataclass(frozen=True, slots=True)
class TrainedHead:
    """A trained head: features -> scores, and its accuracy on the images set aside."""

    score: Callable[[Tensor], Tensor]
    accuracy: float


class AttributeInference(LabelAttack):
    """A classifier, trained on the features of own images, that reads a private label.

    A head trained on the adversary's images and their defended features to read a label.
    Images whose label is unknown are not used; with less than two classes among them the scores are their shares.

    Args:
        head: linear (ridge regression), mlp (a small net, convolutional on maps), or ``auto``: the better of both on
            images set aside.
        epochs: passes of the net over the adversary's images; more where they are few.
    """

    name: ClassVar[str] = "attribute"
    needs = Knows.AUX | Knows.QUERIES
    scale_free: ClassVar[bool] = True

    def __init__(self, *, head: str = "auto", epochs: int = 15) -> None:
        if head not in HEADS:
            raise InputError(f"unknown head {head!r}; choose from {', '.join(HEADS)}.")
        if epochs < 1:
            raise InputError("expected epochs of at least 1; use attribute:epochs=15.")
        self.head, self.epochs = head, epochs

    def run(self, view: View, labels: Tensor, classes: int) -> Tensor:
        seed_view(view, self.name)
        known = torch.nonzero(labels >= 0).flatten().cpu()
        known = known[torch.randperm(len(known), generator=generator(view.seed, self.name, "held"))]
        if len(labels[known].unique()) < 2:
            shares = torch.bincount(labels[known], minlength=classes).float()
            return (shares / shares.sum().clamp_min(1)).expand(len(view.z), -1)
        held = max(1, min(len(known) // 5, 1000))
        train, valid = known[held:], known[:held]
        kinds = {"linear": self._linear, "mlp": self._mlp}
        wanted = kinds if self.head == "auto" else {self.head: kinds[self.head]}
        found = [make(view, labels, classes, train, valid) for make in wanted.values()]
        best = max(found, key=lambda c: c.accuracy)
        view.record(accuracy=best.accuracy)
        return best.score(view.z)

    def _linear(self, view: View, labels: Tensor, classes: int, train: Tensor, valid: Tensor) -> TrainedHead:
        embed = Embedding(view.observe(train[:2048]), generator(view.seed, self.name, "projection"))
        width = embed(view.z[:1]).shape[1]
        ridge = Ridge(width, classes, view.z.device)

        def add(index: Tensor) -> None:
            for part in index.repeat(DRAWS if view.stochastic else 1).split(1024):
                ridge.add(embed(view.observe(part)), F.one_hot(labels[part], classes).float())

        add(train)
        a, truth = embed(view.observe(valid)), labels[valid]
        scores = [ridge.solve(p)(a) for p in PENALTIES]
        errors = [float((s - F.one_hot(truth, classes)).square().mean()) for s in scores]
        hits = [accuracy(s, truth) for s in scores]
        best = max(range(len(PENALTIES)), key=lambda k: (hits[k], -errors[k]))
        add(valid)
        final = ridge.solve(PENALTIES[best])
        return TrainedHead(lambda z: torch.cat([final(embed(part)) for part in z.split(512)]), hits[best])

    def _mlp(self, view: View, labels: Tensor, classes: int, train: Tensor, valid: Tensor) -> TrainedHead:
        scale = ChannelScale(view.observe(train[:2048]))
        head = Head(tuple(view.z.shape[1:]), classes).to(view.z.device)
        precision = native_precision(view.z)

        def read(index: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
            return scale(view.observe(train[index])), labels[train[index]]

        def score(z: Tensor) -> Tensor:
            return infer(head, (scale(part) for part in z.split(512)), precision)

        batches = IndexBatches(len(train), 64, read)
        history = fit(
            HeadLoss(head),
            batches,
            epochs=max(self.epochs, math.ceil(STEPS / len(batches))),
            lr=1.5e-3,
            weight_decay=0.02,
            seed=view.seed,
            precision=precision,
            validate=lambda: accuracy(score(view.observe(valid)), labels[valid]),
            what=f"{self.name} {view.label}".strip(),
        )
        return TrainedHead(score, max(history.scores))


def accuracy(scores: Tensor, truth: Tensor) -> float:
    """Share of samples whose largest score is at their label."""
    return (scores.argmax(1) == truth).float().mean().item()
