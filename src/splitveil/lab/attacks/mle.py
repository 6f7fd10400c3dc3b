"""Regularised maximum likelihood (rMLE): find the image whose features are those seen (He et al. 2019, section 4).

Three things are ours. The search runs in whitened coordinates: colour-opponent cosine coefficients in units of their
natural spread, where every direction is about as long, so that brightness is found as fast as edges (the paper's Adam
in pixels needs thousands of steps for what takes a hundred here). It starts from what a cheaper attack guessed, in
units of that attack's error on images that the adversary set aside. And the prior is the matching Gaussian on those
coefficients beside the paper's total variation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.core.progress import task
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.attacks.base import Attack, seed_view
from splitveil.lab.attacks.parts.inner import image_attack
from splitveil.lab.attacks.parts.lbfgs import descend
from splitveil.lab.attacks.parts.likelihood import OUTSIDE, Likelihood
from splitveil.lab.attacks.parts.whitening import Whitening
from splitveil.lab.attacks.view import Knows, View
from splitveil.lab.tensors import total_variation

RATES, PRIORS = (0.05, 0.2), (0.0, 0.003, 0.03, 0.1, 0.3, 3.0)
"""Step sizes in standard deviations and prior weights tried on the adversary's own images."""
RATE, PRIOR = 0.2, 0.01
"""Where nothing can be tuned."""
TUNED_ON, SPREAD_FROM = 16, 256
"""Images set aside on which choices are tried, and from which the start's error is learnt."""
CHUNK = 128
"""Images optimised together; more goes no faster on a CPU, and no image's result depends on the others."""
ROUGH = 0.8
"""Share of the steps in bf16 where the machine has it; the end, and the choice of the best iterate, are in float32."""
OPTIMIZERS = ("adam", "lbfgs")

Objective = Callable[[Tensor, bool], tuple[Tensor, Tensor]]
Keep = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True, slots=True)
class Tuning:
    """What is tuned: step size in natural standard deviations, weight of the prior, and of total variation in it."""

    rate: float
    prior: float
    variation: float


@dataclass(frozen=True, slots=True)
class Start:
    """Where the search begins: guesses for the private images and for some that the adversary set aside."""

    guess: Tensor
    index: Tensor
    aside: Tensor
    space: Whitening


class MaximumLikelihood(Attack):
    """A search, through the known edge half, for the image whose features are most like those sent.

    Gradient descent on the image: relative feature distance plus prior, images in batches.
    ``||E(x) - z||^2 / ||z - mean(z)||^2 + prior * (variation * TV(x) + |p|^2)`` for each image, by Adam with a cosine
    rate or by L-BFGS, in whitened coordinates p; of all iterates each image keeps the one that was best by this
    objective, never by the truth. The distance is relative, so scaling z changes nothing. Against a random defence the
    features' mean and spread are used where it can tell them, else they are averaged over draws. Where images of its
    own may be queried, rate and weights are tuned on some that were set aside, all choices in one batch.

    Args:
        steps: iterations.
        rate: step size in natural standard deviations, or ``auto`` (0.2 where nothing can be tuned).
        prior: weight of the prior, or ``auto`` (0.01 where nothing can be tuned).
        draws: draws averaged a step against a random defence.
        start: the attack whose guess the search starts from, such as ``[decoder:epochs=6]``; ``mean`` for the mean
            image, which also serves where the start needs more than is granted.
        optimizer: adam or lbfgs.
        restarts: searches an image from random points about the start, beside the one from the start itself.
    """

    name: ClassVar[str] = "mle"
    needs = Knows.WEIGHTS | Knows.DEFENSE
    scale_free: ClassVar[bool] = True

    def __init__(
        self,
        *,
        steps: int = 150,
        rate: float | str = "auto",
        prior: float | str = "auto",
        draws: int = 4,
        start: str = "linear",
        optimizer: str = "adam",
        restarts: int = 0,
    ) -> None:
        for key, value in (("rate", rate), ("prior", prior)):
            if value != "auto" and not (isinstance(value, int | float) and value >= 0):
                raise InputError(f"expected {key} of at least 0 or auto, got {value!r}; use mle:{key}=auto.")
        if min(steps, draws) < 1 or restarts < 0:
            raise InputError("expected steps and draws of at least 1 and restarts of at least 0; use mle:steps=150.")
        if optimizer not in OPTIMIZERS:
            raise InputError(f"unknown optimizer {optimizer!r}; choose from {', '.join(OPTIMIZERS)}.")
        self.steps, self.rate, self.prior, self.draws = steps, rate, prior, draws
        self.start, self.optimizer, self.restarts = start, optimizer, restarts
        self.first = image_attack(start, self.name)

    def run(self, view: View) -> Tensor:
        seed_view(view, self.name)
        start, likelihood = self._start(view), Likelihood(view, self.draws)
        rates = RATES if isinstance(self.rate, str) else (self.rate,)
        priors = PRIORS if isinstance(self.prior, str) else (self.prior,)
        choices = [Tuning(r, p, 1.0) for r in rates for p in priors]
        chunks = torch.arange(len(view.z)).split(CHUNK)
        with task(f"{self.name} {view.label}".strip(), len(chunks) + 1) as show:
            choice = Tuning(
                RATE if isinstance(self.rate, str) else self.rate,
                PRIOR if isinstance(self.prior, str) else self.prior,
                1.0,
            )
            if len(start.index) and len(choices) > 1:
                choice = self._tuned(view, likelihood, start, choices)
            guesses = []
            for k, chunk in enumerate(chunks):
                show(k + 1, f"rate {choice.rate:g}, prior {choice.prior:g}")
                guesses.append(self._restarted(likelihood, start.space, view.z[chunk], start.guess[chunk], choice))
        blind = sum(likelihood.blind(start.guess[chunk], view.z[chunk]) for chunk in chunks)
        stuck = sum(
            likelihood.stuck(start.guess[chunk], found, view.z[chunk])
            for chunk, found in zip(chunks, guesses, strict=True)
        )
        view.record(draws=likelihood.averaged, gradient=blind / len(view.z), stuck=stuck / len(view.z))
        return torch.cat(guesses)

    def _start(self, view: View) -> Start:
        none = torch.arange(0)
        aux = view.aux if Knows.AUX in view.knows else None
        if aux is None:
            grey = torch.full((len(view.z), *view.image_shape), 0.5, device=view.z.device)
            return Start(grey, none, grey[:0], Whitening.of(None, view.image_shape, view.z.device))
        mean = aux.images().mean(0)
        if Knows.QUERIES not in view.knows:
            space = Whitening.of(aux.images(slice(0, 4096)) - mean, view.image_shape)
            return Start(mean.expand(len(view.z), -1, -1, -1), none, mean[None][:0], space)
        index = aux.held_out[:SPREAD_FROM]
        if self.first.name == "mean" or self.first.needs not in view.knows:
            space = Whitening.of(aux.images(slice(0, 4096)) - mean, view.image_shape)
            both = mean.expand(len(view.z) + len(index), -1, -1, -1)
        else:
            z = torch.cat([view.z, view.observe(index)])
            both = self.first(view.within("start", view.knows, z=z)).x_hat.to(z.device)
            space = Whitening.of(aux.images(index) - both[len(view.z) :], view.image_shape)
        return Start(both[: len(view.z)], index, both[len(view.z) :], space)

    def _tuned(self, view: View, likelihood: Likelihood, start: Start, choices: list[Tuning]) -> Tuning:
        """The choice that recovers the adversary's own images best; total variation is tried without last."""
        index = start.index[:TUNED_ON]
        z, x, centre = view.observe(index), view.aux.images(index), start.aside[:TUNED_ON]

        def errors(choices: list[Tuning]) -> list[float]:
            many = len(choices)
            each = [c for c in choices for _ in index]
            guess, _ = self._invert(
                likelihood, start.space, z.repeat(many, *[1] * (z.ndim - 1)), centre.repeat(many, 1, 1, 1), each
            )
            error = (guess.clamp(0, 1) - x.repeat(many, 1, 1, 1)).square().mean((1, 2, 3)).clamp_min(1e-10)
            return error.log10().reshape(many, -1).mean(1).tolist()

        found = dict(zip(choices, errors(choices), strict=True))
        best = min(found, key=lambda c: found[c])
        plain = Tuning(best.rate, best.prior, 0.0)
        return plain if best.prior and errors([plain])[0] < found[best] else best

    def _restarted(self, likelihood: Likelihood, space: Whitening, z: Tensor, centre: Tensor, choice: Tuning) -> Tensor:
        """The best guess (n, C, H, W) by its own objective over the restarts."""
        runs = []
        for restart in range(self.restarts + 1):
            moved = centre + space.image(torch.randn_like(centre)) if restart else centre
            runs.append(self._invert(likelihood, space, z, moved, [choice] * len(z)))
        values = torch.stack([value for _, value in runs])
        return torch.stack([guess for guess, _ in runs])[values.argmin(0), torch.arange(len(z), device=z.device)]

    def _invert(
        self, likelihood: Likelihood, space: Whitening, z: Tensor, centre: Tensor, choices: list[Tuning]
    ) -> tuple[Tensor, Tensor]:
        """z: (n, *cut), centre: (n, C, H, W) -> best guess (n, C, H, W) and its value (n,), infinite where none was."""
        distance = likelihood.to(z)
        # Adam's step does not depend on the gradient's length: a rate per image is a scale of its coordinates.
        rates, priors, variations = torch.tensor([(c.rate, c.prior, c.variation) for c in choices], device=z.device).T
        pace = rates.reshape(-1, 1, 1, 1)
        best, least, where = centre.clone(), torch.full((len(z),), math.inf, device=z.device), Accelerator.of(z)

        def value(q: Tensor, rough: bool) -> tuple[Tensor, Tensor]:
            p = q * pace
            x = centre + space.image(p)
            inside = x.clamp(0, 1)
            with where.autocast(enabled=rough):
                far = distance(inside)
            prior = variations * total_variation(x) + p.square().mean((1, 2, 3))
            return far + priors * prior + OUTSIDE * (x - inside).square().mean((1, 2, 3)), inside

        def keep(inside: Tensor, values: Tensor) -> None:
            # Without masks as indices, which a GPU would have to wait for.
            better = values < least
            least.copy_(torch.where(better, values, least))
            best.copy_(torch.where(better.reshape(-1, 1, 1, 1), inside.detach(), best))

        descent = self._by_lbfgs if self.optimizer == "lbfgs" else self._by_adam
        descent(value, keep, torch.zeros_like(centre))
        return best, least

    def _by_adam(self, value: Objective, keep: Keep, q: Tensor) -> None:
        q.requires_grad_(True)
        optimizer = torch.optim.Adam([q], lr=1.0, betas=(0.9, 0.99), eps=1e-12)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda k: 0.02 + 0.49 * (1 + math.cos(math.pi * k / self.steps))
        )
        rough = int(ROUGH * self.steps) if Accelerator.of(q).bf16 else 0
        for step in range(self.steps + 1):
            values, inside = value(q, step < rough)
            if step >= rough:
                keep(inside, values.detach())
            if step < self.steps:
                (q.grad,) = torch.autograd.grad(values.sum(), q)
                optimizer.step()
                schedule.step()

    def _by_lbfgs(self, value: Objective, keep: Keep, q: Tensor) -> None:
        draws = int(torch.randint(2**62, ()))

        def evaluate(q: Tensor) -> tuple[Tensor, Tensor]:
            # The same draws of a random defence at every point: a line search compares values.
            torch.manual_seed(draws)
            q = q.detach().requires_grad_(True)
            values, inside = value(q, False)
            keep(inside, values.detach())
            (gradient,) = torch.autograd.grad(values.sum(), q)
            return values.detach(), gradient

        descend(evaluate, q, self.steps, lambda q, values: None)
