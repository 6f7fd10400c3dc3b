"""PriPro (Gao et al. 2021, CCGrid): noise at one or several layers, its size told from the input by self-attention."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import Split
from splitveil.lab.defenses.base import Adversary, Batch, Defense, Stage
from splitveil.lab.defenses.parts.frozen_parts import Frozen, image_like, parted
from splitveil.lab.defenses.parts.rival import Rival
from splitveil.lab.defenses.parts.self_attention import SelfAttention
from splitveil.lab.defenses.shredder import laplace
from splitveil.lab.law import Law, Sharp
from splitveil.wire.codecs import Codec

NOISES = ("normal", "laplace")
START = 0.1
"""Sigma of a new module, as a share of the way from least to most."""
DEAD = 1e-6
"""Variance over images, relative to the mean over features, below which a feature earns nothing for its noise."""
SMOOTHING, RATE, REACH = 0.1, 0.05, 1000.0
"""Of the running excess; most that the weight's logarithm changes in a step; how far the weight may go."""


class Injection(nn.Module):
    """Noise at one layer: ``h + scale * (mu(h) + sigma(h) * noise)``, with scale the root mean square of its features.

    Args:
        shape: of one sample's features.
        tokens: see `SelfAttention`.
        width: see `SelfAttention`.
        least: smallest sigma.
        most: largest sigma.
    """

    scale: Tensor
    live: Tensor

    def __init__(self, shape: tuple[int, ...], *, tokens: str, width: int, least: float, most: float) -> None:
        super().__init__()
        self.least, self.most = least, most
        self.attention = SelfAttention(shape, tokens=tokens, width=width)
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("live", torch.ones(shape))

    def calibrate(self, h: Tensor) -> None:
        """h: (M, *shape), without noise."""
        self.scale.copy_(h.square().mean().sqrt().clamp_min(1e-12))
        variance = h.var(0, correction=0)
        self.live.copy_(variance > DEAD * variance.mean())

    def moments(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The offset and sigma in units of the features' root mean square; both broadcast to h: (N, *shape)."""
        mu, rho = self.attention(h / self.scale)
        start = math.atanh(2 * START - 1)
        return mu, self.least + (self.most - self.least) * (1 + torch.tanh(rho + start)) / 2

    def loudness(self, sigma: Tensor) -> Tensor:
        """Mean log sigma over the features that live, a scalar. sigma: as `moments` gives it."""
        return (sigma.log() * self.live).mean(0).sum() / self.live.sum().clamp_min(1.0)

    def forward(self, h: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """h, noise: (N, *shape) -> what is sent, and its sigma; without noise mu alone is added."""
        mu, sigma = self.moments(h)
        return h + self.scale * (mu if noise is None else mu + sigma * noise), sigma


class PriPro(Defense):
    """``h + mu(h) + sigma(h) * noise`` with both halves as they are; self-attention tells mu and sigma from h itself.

    The paper's module and loss are not public: this is our reading of its abstract ("dynamically inject noise to the
    intermediate results at various layers regarding the input features through the self-attention mechanism").
    ``sigma = least + (most - least) * (1 + tanh(rho)) / 2`` for each channel or position, in units of the features'
    root mean square, so that scaling them buys nothing; the loss is ``CE - weight * mean log sigma`` (Cloak's form),
    the mean over features that vary at all, since noise on a dead one hides nothing.

    What to know before trusting it: mu adds no privacy, whoever knows the module allows for it. mu and sigma depend on
    the input and so tell something of it, which is why no dFIL certificate covers this noise and why adversaries must
    train on what is really sent. Noise is fresh for every request, and k requests of one image average it down by
    sqrt(k).

    With several layers the edge half ends at the first of them; the parts between it and the cut live in the defence
    with their weights. Features before the defence then are the first layer's and not of the cut's shape.

    Args:
        weight: of the noise beside the cross-entropy; where it starts, if there is a budget.
        budget: allowed excess of the cross-entropy over the same images without noise, in nats. The weight rises while
            the running excess is within it and falls while it is over. 0 keeps the weight.
        least: smallest sigma.
        most: largest sigma.
        tokens: ``channels`` or ``positions``: what gets a mu and a sigma each.
        noise: ``normal`` or ``laplace``, of the same standard deviation.
        width: of the attention.
        adversarial: weight of the co-trained reconstruction net's failure; 0 trains none.
        aim: mean squared error at which that reward ends.
        layers: the cut and `layers` - 1 places before it, spread evenly over the ends of the edge half's layers.

    Raises:
        InputError: an option out of range; several layers in an edge half that was not traced or has too few.
    """

    name: ClassVar[str] = "pripro"
    stochastic: ClassVar[bool] = True
    trains: ClassVar[frozenset[str]] = frozenset()
    factor: Tensor
    excess: Tensor

    def __init__(
        self,
        *,
        weight: float = 0.1,
        budget: float = 0.0,
        least: float = 0.05,
        most: float = 3.0,
        tokens: str = "channels",
        noise: str = "normal",
        width: int = 32,
        adversarial: float = 0.0,
        aim: float = 0.05,
        layers: int = 1,
    ) -> None:
        super().__init__()
        if not (weight >= 0 and budget >= 0 and 0 < least < most and adversarial >= 0 and layers >= 1):
            raise InputError(
                f"expected weight, budget, adversarial >= 0, 0 < least < most and layers >= 1, got {weight}, {budget}, "
                f"{adversarial}, {least}, {most}, {layers}; use pripro:weight=0.1."
            )
        if budget and not weight:
            raise InputError("expected a weight above 0 to start from, got 0; use pripro:weight=0.1,budget=0.1.")
        if noise not in NOISES:
            raise InputError(f"unknown noise {noise!r} of pripro; choose from {', '.join(NOISES)}.")
        SelfAttention((1, 1, 1), tokens=tokens, width=width)
        self.weight, self.budget, self.least, self.most = float(weight), float(budget), float(least), float(most)
        self.tokens, self.noise, self.width, self.layers = tokens, noise, width, layers
        self.adversarial, self.aim = float(adversarial), float(aim)
        self.injections, self.parts = nn.ModuleList(), nn.ModuleList()
        self.shapes: tuple[tuple[int, ...], ...] = ()
        self.register_buffer("factor", torch.tensor(self.weight))
        self.register_buffer("excess", torch.tensor(0.0))
        # In a tuple: the cloud half is asked while training, but is no part of the defence.
        self._cloud: tuple[nn.Module, ...] = ()
        # Features and sigmas of a training step, from the forward pass to the penalty that follows it.
        self._last: tuple[Tensor, list[Tensor]] | None = None

    def install(self, split: Split) -> Split:
        cut, edge = split.cut, split.edge
        self.shapes = (cut.shape,)
        if self.layers > 1:
            pieces = parted(edge, self.layers)
            z, shapes = image_like(edge, cut.shape, cut.edge_macs), []
            with torch.no_grad():
                for part in pieces:
                    z = part(z)
                    shapes.append(tuple(z.shape[1:]))
            edge, self.shapes = pieces[0], tuple(shapes)
            self.parts = nn.ModuleList(Frozen(part) for part in pieces[1:])
        self.injections = nn.ModuleList(
            Injection(shape, tokens=self.tokens, width=self.width, least=self.least, most=self.most)
            for shape in self.shapes
        )
        return Split(edge, split.cloud, cut) if self.layers > 1 else split

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(trains=frozenset({"defense"}), last=True),)

    def enter(self, split: Split, stage: Stage) -> Split:
        self._cloud = (split.cloud,)
        return split

    def finish(self, split: Split) -> Split:
        self._cloud, self._last = (), None
        return split

    def calibrate(self, z: Tensor) -> None:
        with torch.no_grad():
            for k, injection in enumerate(self._installed()):
                z = torch.cat([self.parts[k - 1](part) for part in z.split(250)]) if k else z
                injection.calibrate(z)

    def rest(self) -> nn.Module | None:
        return nn.Sequential(*self.parts) if self.layers > 1 else None

    def noise_shape(self, h: tuple[int, ...]) -> tuple[int, ...]:
        """That of h for one layer, else flat: all layers' one after another."""
        return h if self.layers == 1 else (sum(math.prod(shape) for shape in self.shapes),)

    def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
        if noise is not None and self.noise == "laplace":
            noise = laplace(noise) / math.sqrt(2)
        sent, sigmas = self._passed(z, noise)
        if self.training:
            self._last = (z, sigmas)
        return sent

    def deviation(self, z: Tensor) -> Tensor | None:
        return self._installed()[0].scale * self.sigmas(z)[0] if self.layers == 1 else None

    def law(self, like: Tensor, codec: Codec | None = None, times: int = 1) -> Law | None:
        if self.layers > 1 or self.noise == "normal":
            return super().law(like, codec, times)

        def deviation(h: Tensor) -> Tensor:
            return self._installed()[0].scale * self.sigmas(h)[0]

        return Sharp(self.mean, codec, deviation=deviation, times=times)

    @property
    def lawful(self) -> bool:
        return self.layers == 1 and self.noise == "laplace"

    def sigmas(self, h: Tensor) -> list[Tensor]:
        """Sigma of every layer, relative and as it is without noise before; each broadcasts to that layer's features.

        h: (N, *first layer), the edge half's features.
        """
        return self._passed(h, None)[1]

    def adversary(self, cut: tuple[int, ...], image: tuple[int, int, int], classes: int) -> Adversary | None:
        return Rival(cut, image) if self.adversarial else None

    def penalty(self, batch: Batch) -> Tensor:
        if self.budget and self._cloud:
            self._keep_to_budget(batch)
        last, self._last = self._last, None
        sigmas = last[1] if last is not None and last[0] is batch.h else self.sigmas(batch.h)
        layers = zip(self._installed(), sigmas, strict=True)
        loud = torch.stack([injection.loudness(sigma) for injection, sigma in layers]).mean()
        found = -self.factor.clone() * loud
        if batch.guess is not None:
            error = (batch.x - batch.guess(batch.z).image.float()).square().mean()
            found = found + self.adversarial * F.relu(self.aim - error)
        return found

    def _installed(self) -> list[Injection]:
        if not self.injections:
            raise InputError("the noise module has no weights yet; install it in a split first.")
        return [m for m in self.injections if isinstance(m, Injection)]

    def _passed(self, z: Tensor, noise: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Through all layers: what is sent, and sigma of each. noise: of the wanted distribution; None for mu alone."""
        start, sigmas = 0, []
        for k, (injection, shape) in enumerate(zip(self._installed(), self.shapes, strict=True)):
            end = start + math.prod(shape)
            own = noise if noise is None or self.layers == 1 else noise[:, start:end].reshape(-1, *shape)
            z, sigma = injection(self.parts[k - 1](z) if k else z, own)
            sigmas.append(sigma)
            start = end
        return z, sigmas

    @torch.no_grad()
    def _keep_to_budget(self, batch: Batch) -> None:
        """One dual step on the weight, on the logarithm so that it stays positive."""
        h = batch.h
        for part in self.parts:
            h = part(h)
        plain, noisy = self._cloud[0](h).float(), batch.logits.float()
        self.excess.lerp_(F.cross_entropy(noisy, batch.y) - F.cross_entropy(plain, batch.y), SMOOTHING)
        room = ((self.budget - self.excess) / self.budget).clamp(-1, 1)
        self.factor.mul_((RATE * room).exp()).clamp_(self.weight / REACH, self.weight * REACH)
