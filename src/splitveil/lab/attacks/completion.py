"""Model completion: stealing the task from features with a handful of labels (Fu et al. 2022, USENIX Security).

Whoever holds the features of many images needs few labels, as images of a class lie together. The paper completes the
model by semi-supervised training (MixMatch); InfoScissors (2024) counts the accuracy that this steals with 40 labels as
leakage. Ours spreads the labels over a neighbour graph of all features, the private ones among them (Zhou et al. 2004):
seconds, and no training loop; a head fitted to what was spread was worse. The choice among graphs, by leaving out one
label at a time, uses no label beyond the few.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.core.progress import task
from splitveil.lab.attacks.attribute import Embedding
from splitveil.lab.attacks.base import LabelAttack, seed_view
from splitveil.lab.attacks.parts.features import as_map
from splitveil.lab.attacks.view import Knows, View
from splitveil.lab.seeds import generator

UNLABELLED = 4000
"""Images of the adversary that lend the graph their features, at most."""
NEIGHBOURS = (10, 30)
DIFFUSION = 0.99
"""Share of a node's label that comes from its neighbours (alpha of Zhou et al.)."""
SOLVES = 40
"""Conjugate gradient steps."""
DRAWS = 4
"""Reads of the adversary's images that are averaged against a random defence."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Labels over a graph. shares: (n, K), rows sum to one; doubt: of the labelled nodes, each left out in turn."""

    shares: Tensor
    doubt: float


class ModelCompletion(LabelAttack):
    """A head in the cloud's place, learned from a few labelled images and many unlabelled ones.

    The task from a few labels and many features without any, the private ones among them.

    Args:
        per_class: labelled images a class, drawn from those whose label is known.
    """

    name: ClassVar[str] = "completion"
    needs = Knows.AUX | Knows.QUERIES
    scale_free: ClassVar[bool] = True

    def __init__(self, *, per_class: int = 4) -> None:
        if per_class < 1:
            raise InputError("expected per_class of at least 1; use completion:per_class=4.")
        self.per_class = per_class

    def run(self, view: View, labels: Tensor, classes: int) -> Tensor:
        seed_view(view, self.name)
        labelled, others = self._chosen(labels, generator(view.seed, self.name))
        y = labels[labelled]
        if len(y.unique()) < 2:
            return F.one_hot(y, classes).float().mean(0).nan_to_num().expand(len(view.z), -1)
        with task(f"{self.name} {view.label}".strip(), 2) as show:
            index = torch.cat([labelled, others])
            own = torch.stack([view.observe(index) for _ in range(DRAWS if view.stochastic else 1)]).mean(0)
            z = torch.cat([own, view.z])
            embed = Embedding(own, generator(view.seed, self.name, "projection"))
            wide = torch.cat([embed(part) for part in z.split(512)])
            pooled = torch.cat([as_map(embed.first(part)).mean((2, 3)) for part in z.split(512)])
            spreads = []
            for k, points in enumerate((wide, pooled)):
                show(k + 1)
                near = neighbours(points, max(NEIGHBOURS))
                spreads += [spread(near[0][:, :m], near[1][:, :m], y, classes) for m in NEIGHBOURS]
        best = min(spreads, key=lambda s: s.doubt)
        view.record(doubt=best.doubt)
        return best.shares[len(index) :]

    def _chosen(self, labels: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positions of the few labelled images, and of those that only lend their features."""
        order = torch.randperm(len(labels), generator=draws)
        known = labels.cpu()
        few = [order[known[order] == k][: self.per_class] for k in known[known >= 0].unique()]
        labelled = torch.cat(few) if few else order[:0]
        free = torch.ones(len(labels), dtype=torch.bool)
        free[labelled] = False
        return labelled, order[free[order]][:UNLABELLED]


def neighbours(points: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Positions and similarities (n, count) of the nearest other points by cosine. points: (n, D)."""
    points = F.normalize(points, dim=1)
    found = []
    for rows in torch.arange(len(points), device=points.device).split(1024):
        cosines = points[rows] @ points.T
        cosines[torch.arange(len(rows), device=points.device), rows] = -math.inf
        found.append(cosines.topk(min(count, len(points) - 1), 1))
    return torch.cat([f.indices for f in found]), torch.cat([f.values for f in found])


def spread(index: Tensor, similarity: Tensor, y: Tensor, classes: int) -> Spread:
    """Labels y of the first nodes over the graph of these neighbours (Zhou et al. 2004).

    A label's reach is solved for alone and normalised by its sum over all nodes, so that no label wins by standing in a
    dense place (our reading); leaving one out is then leaving out its column.
    """
    n, k = index.shape
    rows = torch.arange(n, device=index.device).repeat_interleave(k)
    weights = similarity.clamp_min(0).pow(3).flatten() + 1e-9
    edges = torch.sparse_coo_tensor(torch.stack([rows, index.flatten()]), weights, (n, n), check_invariants=False)
    degree = weights.new_zeros(n).index_add_(0, rows, weights).index_add_(0, index.flatten(), weights).rsqrt()
    graph = (edges + edges.t()).coalesce()
    at = graph.indices()
    graph = torch.sparse_coo_tensor(
        at, graph.values() * degree[at[0]] * degree[at[1]], (n, n), is_coalesced=True, check_invariants=False
    )
    reach = solve(graph, torch.eye(n, len(y), device=index.device)).clamp_min(0)
    reach = reach / reach.sum(0)
    hot = F.one_hot(y, classes).float()
    left = reach[: len(y)].clone().fill_diagonal_(0) @ hot
    # A label that stands alone in its class cannot be left out fairly.
    fair = hot.sum(0)[y] > 1
    left = left / (hot.sum(0) - hot).clamp_min(1)
    right = left.gather(1, y[:, None])[:, 0] / left.sum(1).clamp_min(1e-30)
    doubt = -right[fair].clamp_min(1e-3).log().mean().item() if fair.any() else 0.0
    shares = reach @ (hot / hot.sum(0).clamp_min(1))
    return Spread(shares / shares.sum(1, keepdim=True).clamp_min(1e-30), doubt)


def solve(graph: Tensor, start: Tensor) -> Tensor:
    """``(I - DIFFUSION graph)^-1 start`` for each column, by conjugate gradients. (n, n), (n, L) -> (n, L)."""
    x, residual = torch.zeros_like(start), start.clone()
    direction, power = residual.clone(), residual.square().sum(0)
    for _ in range(SOLVES):
        moved = direction - DIFFUSION * torch.sparse.mm(graph, direction)
        pace = power / (direction * moved).sum(0).clamp_min(1e-30)
        x, residual = x + pace * direction, residual - pace * moved
        now = residual.square().sum(0)
        direction = residual + now / power.clamp_min(1e-30) * direction
        power = now
    return x
