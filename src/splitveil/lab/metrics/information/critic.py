"""The critic that MINE and InfoNCE share: a score for every pair of an x and a z."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.metrics.information.base import SampleSplit, paired, split_samples, standardised
from splitveil.lab.seeds import derive
from splitveil.lab.training import IndexBatches, fit

FARTHEST = 5.0
"""Standardised features are clamped here: a critic may be anything, and this one is not ruled by a few outliers."""
STRONGEST = 1 - 1e-4
"""Squared canonical correlation that the start believes in, at most."""
RIDGE = 1e-4
EVALUATED = 4096
"""Held-out samples that are scored against each other, at most: all pairs are."""


FACTORS = tuple(k / 20 for k in range(20, -1, -1))


class Tower(nn.Module):
    """A linear map and a net beside it: (N, D) -> (N, out), and a potential (N,)."""

    def __init__(self, inputs: int, width: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, out)
        last = nn.Linear(width, out + 1)
        self.net = nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), last)
        with torch.no_grad():
            for layer in (self.linear, last):
                layer.weight.mul_(0.1)
                layer.bias.zero_()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        learned = self.net(x)
        return self.linear(x) + learned[:, :-1], learned[:, -1]


class Critic(nn.Module):
    """Unbounded score of all pairs: T = sum_k f_k g_k - e^p_k f_k^2 / 2 - e^q_k g_k^2 / 2 + a(x) + b(z).

    f, a and g, b come from one tower each (a separable critic, so that n^2 pairs cost n passes and one product); the
    squares are there because the log density ratio of Gaussians has that form. Nothing bounds T: a critic that ends in
    a sigmoid can show 1 nat at most.

    Args:
        x_dims: features of x.
        z_dims: features of z.
        width: of the two hidden layers.
        out: coordinates in which x and z meet.
    """

    def __init__(self, x_dims: int, z_dims: int, *, width: int = 128, out: int = 64) -> None:
        super().__init__()
        self.of_x, self.of_z = Tower(x_dims, width, out), Tower(z_dims, width, out)
        self.p, self.q = nn.Parameter(torch.zeros(out)), nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x: (n, Dx), z: (m, Dz) -> (n, m)."""
        (f, a), (g, b) = self.of_x(x), self.of_z(z)
        own = a - 0.5 * f.square() @ self.p.exp()
        other = b - 0.5 * g.square() @ self.q.exp()
        scores: Tensor = f @ g.T + own[:, None] + other
        return scores

    @torch.no_grad()
    def start_linear(self, x: Tensor, z: Tensor) -> None:
        """Begin at the log density ratio that Gaussians with these canonical correlations would have (our reading).

        The nets learn what that leaves over. Correlations that so few samples show by chance are taken off.
        x: (n, Dx), z: (n, Dz).
        """
        n, out = len(x), self.p.numel()
        x, z = x.double(), z.double()
        white_x, white_z = _whitener(x), _whitener(z)
        u, s, vh = torch.linalg.svd(white_x.T @ (x - x.mean(0)).T @ (z - z.mean(0)) @ white_z / n, full_matrices=False)
        chance = min(0.9, (white_x.shape[1] + white_z.shape[1]) / n)
        squared = ((s.square() - chance) / (1 - chance)).clamp(0, STRONGEST)
        keep = int((squared > 0).sum().clamp_max(out))
        rho = squared[:keep].sqrt()
        size = (rho / (1 - rho.square())).sqrt()
        for tower, directions, mean in (
            (self.of_x, white_x @ u[:, :keep] * size, x.mean(0)), (self.of_z, white_z @ vh[:keep].T * size, z.mean(0)),
        ):  # fmt: skip
            tower.linear.weight[:keep] = directions.T.float()
            tower.linear.bias[:keep] = -(mean @ directions).float()
        self.p[:keep] = rho.log().float()
        self.q[:keep] = rho.log().float()


def _whitener(x: Tensor) -> Tensor:
    """(D, r) that makes the rows of x white, without the directions in which they hardly move."""
    values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0).reshape(x.shape[1], x.shape[1]))
    kept = values > RIDGE * values[-1].clamp_min(RIDGE)
    whitener: Tensor = vectors[:, kept] / values[kept].sqrt()
    return whitener


def for_critic(x: Tensor, parts: SampleSplit) -> Tensor:
    """Standardised by the training part, clamped, float32. x: (N, D)."""
    return standardised(x, x[parts.train]).clamp(-FARTHEST, FARTHEST).float()


def held_out_scores(
    x: Tensor,
    z: Tensor,
    loss: Callable[[Critic], nn.Module],
    *,
    score: Callable[[Tensor], float],
    steps: int,
    batch: int,
    lr: float,
    width: int,
    seed: int,
    what: str,
) -> Tensor:
    """Train a critic on one half of the pairs and let it score all pairs of the other half: (n, n), float64.

    The weights kept are those of the epoch with the best `score` on a part of the training half. That part also picks
    a factor from 0 to 1 for the critic's scores: few samples in many dimensions make a critic too sure of itself, and
    0 times any critic shows 0 nats (our reading).

    Args:
        x: (N, ...).
        z: (N, ...).
        loss: critic -> module that takes (n, Dx), (n, Dz) and gives the loss.
        score: of pairs (n, n), real ones on the diagonal; larger is better.
        steps: optimiser steps, rounded up to whole epochs.
        batch: pairs a step; each x meets each z of its batch.
        lr: peak learning rate.
        width: of the critic's hidden layers.
        seed: of the halves, the critic and its training.
        what: the estimator's name.

    Raises:
        InputError: samples that do not pair, are too few or not finite; steps or batch too small.
        TrainingError: the loss is no longer finite.
    """
    if steps < 1 or batch < 2 or lr <= 0:
        raise InputError(f"expected steps >= 1, batch >= 2, lr > 0, got {steps}, {batch}, {lr}; use {what}:steps=200.")
    x, z = paired(x, z)
    parts = split_samples(len(x), seed)
    x, z = for_critic(x, parts), for_critic(z, parts)
    count = len(parts.train)
    # A last batch of a few samples would weigh as much as a full one.
    size = math.ceil(count / max(1, round(count / batch)))
    read = IndexBatches(count, size, lambda i, _: (x[parts.train[i]], z[parts.train[i]]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, what))
        critic = Critic(x.shape[1], z.shape[1], width=width)
        critic.to(x.device).start_linear(x[parts.train], z[parts.train])
        fit(
            loss(critic).to(x.device), read, epochs=math.ceil(steps / len(read)), lr=lr, weight_decay=1e-2,
            seed=derive(seed, what),
            precision="32-true", validate=lambda: score(all_pairs(critic, x[parts.valid], z[parts.valid])), what=what,
        )  # fmt: skip
    scores = all_pairs(critic, x[parts.valid], z[parts.valid])
    factor = max(FACTORS, key=lambda factor: score(factor * scores))
    held = parts.held[:EVALUATED]
    return factor * all_pairs(critic, x[held], z[held])


@torch.inference_mode()
def all_pairs(critic: nn.Module, x: Tensor, z: Tensor) -> Tensor:
    """Scores of every x with every z, in float64 on the CPU. x: (n, Dx), z: (n, Dz) -> (n, n)."""
    device = next(critic.parameters()).device
    scores: Tensor = critic(x.to(device), z.to(device))
    return scores.cpu().double()
