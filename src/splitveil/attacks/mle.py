"""Regularised maximum likelihood (rMLE): find the image whose features are those seen (He et al. 2019, section 4).

Two things are ours. The search runs in whitened coordinates: colour-opponent cosine coefficients in units of their
spread over natural images, where every direction is about as long, so that brightness is found as fast as edges (the
paper's Adam in pixels needs thousands of steps for what takes a hundred here). And the prior is the matching Gaussian
on those coefficients beside the paper's total variation.
"""

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from splitveil.attacks.base import Attack, frozen, seed_view
from splitveil.attacks.view import Aux, Knows, View
from splitveil.errors import InputError
from splitveil.progress import task
from splitveil.registry import Value
from splitveil.seeds import bf16_pays
from splitveil.tensors import total_variation

RATES, PRIORS = (0.05, 0.2), (0.0, 0.003, 0.03, 0.1, 0.3, 3.0)
"""Step sizes in standard deviations and prior weights tried on the adversary's own images."""
TUNED_ON = 16
CHUNK = 128
"""Images optimised together; more goes no faster on a CPU, and no image's result depends on the others."""
ROUGH = 0.7
"""Share of the steps in bf16 where the machine has it; the end, and the choice of the best iterate, are in float32."""
OUTSIDE = 10.0
"""Weight of the squared distance to [0, 1]."""


@dataclass(frozen=True, slots=True)
class Whitening:
    """Image space in units of natural spread: ``x = mean + decode(scale * p)`` with p about standard normal.

    mean: (C, H, W); scale: (C, H, W); rows: (H, H) and columns: (W, W) orthonormal cosines; colours: (C, C)
    orthonormal.
    """

    mean: Tensor
    scale: Tensor
    rows: Tensor
    columns: Tensor
    colours: Tensor

    @classmethod
    def of(cls, aux: Aux | None, shape: tuple[int, int, int]) -> "Whitening":
        """Mean and spread of the adversary's images; without any, grey and a spectrum that falls as 1/f."""
        channels, height, width = shape
        rows, columns, colours = cosines(height), cosines(width), opponents(channels)
        if aux is not None and len(aux) > 1:
            images = aux.images(slice(0, 4096))
            mean = images.mean(0)
            spread = torch.einsum("cd,ndhw->nchw", colours, rows @ (images - mean) @ columns.T).std(0)
            return cls(mean, spread.clamp_min(1e-2 * float(spread.mean())), rows, columns, colours)
        frequency = torch.hypot(torch.arange(height)[:, None] / height, torch.arange(width)[None] / width)
        spread = 0.15 * (height * width) ** 0.5 / (1 + 32 * frequency)
        strength = torch.tensor([1.0] + [0.3] * (channels - 1)).reshape(-1, 1, 1)
        return cls(torch.full(shape, 0.5), spread * strength, rows, columns, colours)

    def image(self, p: Tensor) -> Tensor:
        """p: (N, C, H, W) -> x: (N, C, H, W), not clipped."""
        pixels = self.rows.T @ (p * self.scale) @ self.columns
        x: Tensor = self.mean + torch.einsum("cd,nchw->ndhw", self.colours, pixels)
        return x


def cosines(n: int) -> Tensor:
    """Orthonormal DCT-II matrix, (n, n)."""
    k = torch.arange(n, dtype=torch.float32)
    matrix = torch.cos(math.pi * (k[None] + 0.5) * k[:, None] / n) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def opponents(channels: int) -> Tensor:
    """Orthonormal colour axes, (C, C): brightness, red-blue, green-magenta for RGB; else the channels themselves."""
    if channels != 3:
        return torch.eye(channels)
    axes = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    unit: Tensor = axes / axes.norm(dim=1, keepdim=True)
    return unit


def folded(edge: nn.Module) -> nn.Module:
    """A copy of a traced edge with BatchNorm folded into the convolutions before it; any other edge as it is."""
    if not isinstance(edge, fx.GraphModule):
        return edge
    copied = copy.deepcopy(edge)
    for node in copied.graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) > 1:
            continue
        conv, norm = copied.get_submodule(str(source.target)), copied.get_submodule(str(node.target))
        if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
            parent, _, name = str(source.target).rpartition(".")
            setattr(copied.get_submodule(parent), name, fuse_conv_bn_eval(conv, norm))
            parent, _, name = str(node.target).rpartition(".")
            setattr(copied.get_submodule(parent), name, nn.Identity())
    return frozen(copied)


class MaximumLikelihood(Attack):
    """Gradient descent on the image: relative feature distance plus prior, images in batches.

    ``||E(x) - z||^2 / ||z - mean(z)||^2 + prior * (TV(x) + |p|^2)`` for each image, by Adam with a cosine rate in
    whitened coordinates p; of all iterates each image keeps the one that was best by this objective, never by the
    truth. The distance is relative, so scaling z changes nothing. Against a random defence the defended features are
    averaged over draws. Where images of its own may be queried, rate and prior are tuned on some of them, all choices
    in one batch.

    Args:
        steps: iterations.
        rate: step size in natural standard deviations, or ``auto`` (0.1 where nothing can be tuned).
        prior: weight of the prior, or ``auto`` (0.03 where nothing can be tuned).
        draws: draws averaged a step against a random defence.
    """

    name: ClassVar[str] = "mle"
    needs = Knows.WEIGHTS | Knows.DEFENSE
    scale_free: ClassVar[bool] = True

    def __init__(
        self, *, steps: int = 150, rate: float | str = "auto", prior: float | str = "auto", draws: int = 4
    ) -> None:
        for key, value in (("rate", rate), ("prior", prior)):
            if value != "auto" and not (isinstance(value, int | float) and value >= 0):
                raise InputError(f"expected {key} of at least 0 or auto, got {value!r}; use mle:{key}=auto.")
        if min(steps, draws) < 1:
            raise InputError("expected steps and draws of at least 1; use mle:steps=150.")
        self.steps, self.rate, self.prior, self.draws = steps, rate, prior, draws

    def run(self, view: View) -> Tensor:
        seed_view(view, self.name)
        aux = view.aux if Knows.AUX in view.knows else None
        space = Whitening.of(aux, view.image_shape)
        rates = RATES if isinstance(self.rate, str) else (self.rate,)
        priors = PRIORS if isinstance(self.prior, str) else (self.prior,)
        choices = [(r, p) for r in rates for p in priors]
        chunks = view.z.split(CHUNK)
        with task(f"{self.name} {view.label}".strip(), len(chunks) + 1) as show:
            rate, prior = choices[0] if len(choices) == 1 else (0.1, 0.03)
            if aux is not None and Knows.QUERIES in view.knows and len(choices) > 1:
                rate, prior = self._tune(view, space, choices)
            guesses = []
            for k, z in enumerate(chunks):
                show(k + 1, f"rate {rate:g}, prior {prior:g}")
                guesses.append(self._invert(view, space, z, torch.full((len(z),), rate), torch.full((len(z),), prior)))
        return torch.cat(guesses)

    def _tune(self, view: View, space: Whitening, choices: list[tuple[float, float]]) -> tuple[float, float]:
        """The choice that recovers the adversary's own images best."""
        index = torch.arange(min(TUNED_ON, len(view.aux)))
        z, x, many = view.observe(index), view.aux.images(index), len(choices)
        rates, priors = torch.tensor(choices).repeat_interleave(len(index), 0).T
        guess = self._invert(view, space, z.repeat(many, *[1] * (z.ndim - 1)), rates, priors)
        error = (guess.clamp(0, 1) - x.repeat(many, 1, 1, 1)).square().mean((1, 2, 3)).clamp_min(1e-10)
        return choices[int(error.log().reshape(many, -1).mean(1).argmin())]

    def _invert(self, view: View, space: Whitening, z: Tensor, rates: Tensor, priors: Tensor) -> Tensor:
        """z: (n, *cut); rates, priors: (n,) -> x_hat: (n, C, H, W)."""
        edge = folded(view.edge)
        size = (z - z.flatten(1).mean(1).reshape(-1, *[1] * (z.ndim - 1))).flatten(1).square().sum(1)
        size = torch.where(size > 0, size, 1.0)
        # Adam's step does not depend on the gradient's length: a rate per image is a scale of its coordinates.
        pace = rates.reshape(-1, 1, 1, 1)
        q = torch.zeros(len(z), *view.image_shape, requires_grad=True)
        best, best_value = torch.zeros_like(q), torch.full((len(z),), math.inf)
        optimizer = torch.optim.Adam([q], lr=1.0, betas=(0.9, 0.99), eps=1e-12)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda k: 0.02 + 0.49 * (1 + math.cos(math.pi * k / self.steps))
        )
        rough = int(ROUGH * self.steps) if bf16_pays() else 0
        for step in range(self.steps + 1):
            p = q * pace
            x = space.image(p)
            inside = x.clamp(0, 1)
            with torch.autocast("cpu", torch.bfloat16, enabled=step < rough):
                features = self._features(edge, view, inside)
            distance = (features.float() - z).flatten(1).square().sum(1) / size
            prior = total_variation(x) + p.square().mean((1, 2, 3))
            value = distance + priors * prior + OUTSIDE * (x - inside).square().mean((1, 2, 3))
            with torch.no_grad():
                better = (value < best_value) & (step >= rough)
                best_value = torch.where(better, value, best_value)
                best[better] = inside[better]
            if step < self.steps:
                (q.grad,) = torch.autograd.grad(value.sum(), q)
                optimizer.step()
                schedule.step()
        return best.detach()

    def _features(self, edge: nn.Module, view: View, x: Tensor) -> Tensor:
        z: Tensor = edge(x.contiguous(memory_format=torch.channels_last))
        if not view.stochastic:
            out: Tensor = view.defense(z)
            return out
        return torch.stack([view.defense(z) for _ in range(self.draws)]).mean(0)

    def options(self) -> dict[str, Value]:
        return {"steps": self.steps, "rate": self.rate, "prior": self.prior, "draws": self.draws}
