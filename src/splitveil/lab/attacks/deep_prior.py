"""Deep image prior as an attack (Ulyanov et al. 2018): an untrained generator an image, fitted to its features.

The recipe known from split inference is a five-level skip net an image and ten thousand steps or more, with noise on
the generator's input. Ours runs all images at once in some hundred steps: a short stack of grouped 3 x 3 convolutions,
one group an image, from noise at half resolution. At ResNet-20's layer2 and as many steps even a narrow stack was 4 dB
ahead of a deep decoder (1 x 1 convolutions between upsamplings, Heckel and Hand 2019), whose wider maps at full
resolution took longer too; grids coarser than half and noise on the input cost quality. The generator adds to a first
guess, the best linear inverse where that can be had.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.core.progress import Show, task
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.attacks.base import Attack, seed_view
from splitveil.lab.attacks.parts.inner import image_attack
from splitveil.lab.attacks.parts.likelihood import OUTSIDE, Likelihood
from splitveil.lab.attacks.view import Knows, View
from splitveil.lab.seeds import generator
from splitveil.lab.tensors import total_variation

PRIORS = (0.0, 0.03, 0.3, 3.0)
"""Weights of total variation, and a tenth of those of the squared distance to the first guess, tried on aux images."""
TUNED_ON, STOPS = 8, 8
"""Images on which prior and stop are tuned, and how many stops are tried."""
CHUNK = 64
ROUGH = 0.8
"""Share of the steps in bf16 where the machine has it; the end, and the choice of the best iterate, are in float32."""


class Generators(nn.Module):
    """One small untrained net an image, all in one grouped convolution a layer: nothing -> (N, C, H, W).

    Three layers at the coarse grid, then one at each doubling, each normalised an image and channel; the last map is
    added to a first guess. All images begin with the same weights, so none depends on the others beside it.

    Args:
        guess: (N, C, H, W), what the nets add to; at first they add nothing.
        width: channels at the coarse grid; half as many above it.
        draws: of the input noise and the weights.
    """

    noise: Tensor
    guess: Tensor

    def __init__(self, guess: Tensor, width: int, draws: torch.Generator) -> None:
        super().__init__()
        self.count, self.channels, height, width_px = guess.shape
        doublings = max(1, math.ceil(math.log2(max(height, width_px) / 24)))
        self.grids = [(math.ceil(height / 2**k), math.ceil(width_px / 2**k)) for k in range(doublings, -1, -1)]
        self.register_buffer("guess", guess)
        noise = torch.randn(1, width, *self.grids[0], generator=draws)
        self.register_buffer("noise", noise.repeat(1, self.count, 1, 1))
        widths = [width] * 4 + [max(1, width // 2)] * doublings
        self.weights, self.gains, self.shifts = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for before, now in itertools.pairwise(widths):
            weight = torch.randn(now, before, 3, 3, generator=draws) * math.sqrt(2 / (9 * before))
            self.weights.append(weight.repeat(self.count, 1, 1, 1))
            self.gains.append(torch.ones(self.count * now))
            self.shifts.append(torch.zeros(self.count * now))
        self.head = nn.Parameter(torch.zeros(self.count * self.channels, widths[-1], 1, 1))
        self.bias = nn.Parameter(torch.zeros(self.count * self.channels))
        self.to(guess.device)

    def forward(self) -> Tensor:
        x = self.noise
        for layer, (weight, gain, shift) in enumerate(zip(self.weights, self.gains, self.shifts, strict=True)):
            grid = self.grids[max(0, layer - 2)]
            if tuple(x.shape[2:]) != grid:
                x = F.interpolate(x, grid, mode="bilinear", align_corners=False)
            x = F.conv2d(x, weight, padding=1, groups=self.count)
            # Each image has channels of its own, so these statistics are an image's.
            x = F.leaky_relu(F.batch_norm(x, None, None, gain, shift, training=True), 0.1)
        added = F.conv2d(x, self.head, self.bias, groups=self.count)
        return self.guess + added.reshape(self.guess.shape).float()


@dataclass(frozen=True, slots=True)
class Stop:
    """Weight of the prior, and the step to stop at."""

    prior: float
    stop: int


class DeepPrior(Attack):
    """A search, through the known edge half, among the images that an untrained image network draws.

    Deep image prior: the weights of an untrained generator an image are fitted until its features are those seen.
    ``||E(G(w)) - z||^2 / ||z - mean(z)||^2 + prior * (TV + 10 |G(w) - guess|^2)`` for each image, by Adam with a cosine
    rate; of the iterates after the rough part each image keeps the one that was best by this objective. The distance is
    relative, so scaling z changes nothing. Against a random defence the defended features are averaged over draws.
    Where images of its own may be queried, the prior and the step to stop at are those that were best on some of them.

    Args:
        steps: iterations.
        rate: peak step size.
        width: channels of the generator.
        prior: weight of the prior, or ``auto`` (0 where nothing can be tuned).
        start: the attack whose guess the generator adds to; ``mean`` for the mean image, which also serves where the
            start needs more than is granted, and grey where there are no images at all.
        draws: draws averaged a step against a random defence.
    """

    name: ClassVar[str] = "deep_prior"
    needs = Knows.WEIGHTS | Knows.DEFENSE
    scale_free: ClassVar[bool] = True

    def __init__(
        self,
        *,
        steps: int = 300,
        rate: float = 0.03,
        width: int = 32,
        prior: float | str = "auto",
        start: str = "linear",
        draws: int = 4,
    ) -> None:
        if prior != "auto" and not (isinstance(prior, int | float) and prior >= 0):
            raise InputError(f"expected prior of at least 0 or auto, got {prior!r}; use deep_prior:prior=auto.")
        if min(steps, width, draws) < 1 or rate <= 0:
            raise InputError("expected steps, width and draws of at least 1 and rate > 0; use deep_prior:steps=300.")
        self.steps, self.rate, self.width, self.prior = steps, rate, width, prior
        self.start, self.draws = start, draws
        self.first = image_attack(start, self.name)

    def run(self, view: View) -> Tensor:
        seed_view(view, self.name)
        aux = view.aux if Knows.AUX in view.knows else None
        own = aux.held_out[:TUNED_ON] if aux is not None and Knows.QUERIES in view.knows else torch.arange(0)
        known = view.observe(own) if len(own) else view.z[:0]
        guess = self._guess(view, torch.cat([view.z, known]))
        guess, own_guess = guess[: len(view.z)], guess[len(view.z) :]
        likelihood = Likelihood(view, self.draws)
        blind = sum(likelihood.blind(g, z) for g, z in zip(guess.split(CHUNK), view.z.split(CHUNK), strict=True))
        priors = PRIORS if isinstance(self.prior, str) else (self.prior,)
        chunks = [*zip(view.z.split(CHUNK), guess.split(CHUNK), strict=True)]
        with task(f"{self.name} {view.label}".strip(), self.steps * (len(chunks) + bool(len(own)))) as show:
            choice, done = Stop(priors[0], self.steps), 0
            if len(own):
                choice, done = (
                    self._tuned(view.seed, likelihood, known, own_guess, view.aux.images(own), priors, show),
                    self.steps,
                )
            found = []
            for k, (z, start) in enumerate(chunks):
                weights = torch.full((len(z),), choice.prior, device=z.device)
                *_, (_, best) = self._descend(
                    view.seed, likelihood, z, start, weights, choice.stop, show, done + k * self.steps
                )
                found.append(best)
        view.record(draws=likelihood.averaged, gradient=blind / len(view.z))
        return torch.cat(found)

    def _guess(self, view: View, z: Tensor) -> Tensor:
        """What the generators add to, for features z: (n, *cut) -> (n, C, H, W)."""
        if self.first.needs in view.knows:
            return self.first(view.within("start", view.knows, z=z)).x_hat.to(z.device)
        if Knows.AUX in view.knows:
            return view.aux.images().mean(0).expand(len(z), -1, -1, -1)
        return torch.full((len(z), *view.image_shape), 0.5, device=z.device)

    def _tuned(
        self,
        seed: int,
        likelihood: Likelihood,
        z: Tensor,
        guess: Tensor,
        x: Tensor,
        priors: tuple[float, ...],
        show: Show,
    ) -> Stop:
        """The prior and the stop that recover the adversary's own images x: (m, C, H, W) best."""
        many = len(priors)
        weights = torch.tensor(priors, device=z.device).repeat_interleave(len(z))
        start, truth = guess.repeat(many, 1, 1, 1), x.repeat(many, 1, 1, 1)
        best, least = Stop(priors[0], self.steps), math.inf
        for step, image in self._descend(
            seed, likelihood, z.repeat(many, *[1] * (z.ndim - 1)), start, weights, self.steps, show
        ):
            errors = (image - truth).square().mean((1, 2, 3)).clamp_min(1e-10).log10().reshape(many, -1).mean(1)
            if float(errors.min()) < least:
                best, least = Stop(priors[int(errors.argmin())], step), float(errors.min())
        return best

    def _descend(
        self,
        seed: int,
        likelihood: Likelihood,
        z: Tensor,
        guess: Tensor,
        priors: Tensor,
        stop: int,
        show: Show,
        done: int = 0,
    ) -> Iterable[tuple[int, Tensor]]:
        """Images at some steps up to `stop`, then the best one. z: (n, *cut), priors: (n,) -> (n, C, H, W) each."""
        distance = likelihood.to(z)
        nets = Generators(guess, self.width, generator(seed, self.name))
        optimizer = torch.optim.Adam(nets.parameters(), lr=self.rate, betas=(0.9, 0.95), fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda k: min(1, (k + 1) / 20) * (0.02 + 0.49 * (1 + math.cos(math.pi * k / self.steps)))
        )
        where = Accelerator.of(z)
        exact = int(ROUGH * stop) if where.bf16 else 0
        marks = {round(k * self.steps / STOPS) for k in range(STOPS)}
        best, least = guess.clamp(0, 1), torch.full((len(z),), math.inf, device=z.device)
        for step in range(stop + 1):
            rough = 0 < step < exact
            with where.autocast(enabled=rough):
                x = nets()
                inside = x.clamp(0, 1)
                far = distance(inside)
            value = far + priors * (total_variation(x) + 10 * (x - guess).square().mean((1, 2, 3)))
            value = value + OUTSIDE * (x - inside).square().mean((1, 2, 3))
            if not rough:
                # Without masks as indices, which a GPU would have to wait for.
                better = value.detach() < least
                least = torch.where(better, value.detach(), least)
                best = torch.where(better.reshape(-1, 1, 1, 1), inside.detach(), best)
            if step in marks and step < stop:
                yield step, inside.detach()
            if step < stop:
                optimizer.zero_grad()
                value.sum().backward()
                optimizer.step()
                schedule.step()
            show(done + step)
        yield stop, best
