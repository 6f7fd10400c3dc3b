"""Draws from p(x | z) by flow matching (Lipman et al., ICLR 2023, section 3; Liu et al. 2022, rectified flow).

A decoder trained on squared error gives the mean of all images that fit z, and a mean is blurred. The flow learns how
real images differ from that mean: straight paths from noise to residuals, and a net that knows the velocity along
them, given z and the decoder's guess (`splitveil.lab.attacks.parts.velocity`). No paper of split inference does
this; it is our reading of what a conditional diffusion prior can do for an adversary who may only query.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.core.progress import task
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.attacks.base import Attack, seed_view
from splitveil.lab.attacks.decoder import Inverse, decoder_attack, last_gain
from splitveil.lab.attacks.parts.velocity import Matching, Velocity, follow
from splitveil.lab.attacks.parts.whitening import Whitening
from splitveil.lab.attacks.view import Knows, View
from splitveil.lab.seeds import generator
from splitveil.lab.training import IndexBatches, fit, native_precision

LR = 2e-3


@dataclass(frozen=True, slots=True)
class ResidualFlow:
    """A trained flow of residuals around a decoder's guess.

    unit: root mean square of those that it was trained with; stretch: how much larger those of other images are.
    """

    net: Velocity
    inverse: Inverse
    space: Whitening
    unit: float
    stretch: float
    precision: str

    def draw(self, z: Tensor, guess: Tensor, steps: int, draws: torch.Generator) -> Tensor:
        """A residual for each image. z: (N, *cut), normalised; guess: (N, C, H, W) -> (N, C, H, W)."""
        net = self.net
        noise = self.space.image(torch.randn(guess.shape, generator=draws).to(z.device)) / self.unit
        with Accelerator.of(z).autocast(self.precision):
            context = net.context(z, guess)
            r = follow(lambda r, t: net(r, t, context), noise, steps)
        return r * self.unit * self.stretch


class FlowMatching(Attack):
    """Sharp draws from the images that the features still allow, by a network trained on own images.

    Draws images from p(x | z), so that detail comes back which the mean of a decoder blurs away.
    Trained on residuals around the decoder's guess (that of the ``decoder`` attack with the same options, trained once
    for both). Residuals are larger on images that the decoder was not trained with; draws are stretched to that. Of
    several draws each image keeps the one whose features, queried again, are nearest to z.

    Args:
        epochs: passes over the adversary's images; more where they are few, so that there are at least `steps`.
        steps: least number of optimiser steps.
        width: channels of the velocity's net.
        draws: images drawn for each z.
        ode: steps of Heun's rule a draw.
        decoder: the decoder to start from, as the registry reads it.
    """

    name: ClassVar[str] = "flow"
    needs = Knows.AUX | Knows.QUERIES
    scale_free: ClassVar[bool] = True

    def __init__(
        self, *, epochs: int = 8, steps: int = 1200, width: int = 48, draws: int = 4, ode: int = 8,
        decoder: str = "decoder",
    ) -> None:  # fmt: skip
        if min(epochs, steps, width, draws, ode) < 1:
            raise InputError("expected epochs, steps, width, draws and ode of at least 1; use flow:draws=4.")
        self.decoder = decoder_attack(decoder)
        self.epochs, self.steps, self.width, self.draws, self.ode = epochs, steps, width, draws, ode

    def run(self, view: View) -> Tensor:
        inverse = self.decoder.trained(view)
        seed_view(view, self.name)
        net = Velocity(tuple(view.z.shape[1:]), view.image_shape, self.width, 2)
        net.to(view.z.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        precision = native_precision(view.z)
        flow = self._trained(view, inverse, net, precision)
        return self._drawn(view, flow)

    def _trained(self, view: View, inverse: Inverse, net: Velocity, precision: str) -> "ResidualFlow":
        aux, valid = view.aux, view.aux.held_out
        train = len(aux) - len(valid)

        def see(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            z = view.observe(index)
            guess = inverse.guess(z)
            return inverse.scale(z), guess, aux.images(index) - guess

        z, guess, off = see(valid)
        # Without noise in the features every epoch would see the same guesses again.
        kept = None if view.stochastic else torch.cat([see(i)[1] for i in torch.arange(train).split(256)])

        def read(index: Tensor, _: torch.Generator) -> tuple[Tensor, ...]:
            if kept is None:
                return see(index)
            return inverse.scale(view.observe(index)), kept[index], aux.images(index) - kept[index]

        own = read(torch.arange(min(train, 1024)), torch.Generator())[2]
        space, unit = Whitening.of(own, view.image_shape), float(own.square().mean().sqrt().clamp_min(1e-6))
        stretch = float(off.square().mean().sqrt()) / unit
        held = (z, guess, off / max(stretch, 1e-6))
        matching = Matching(net, space, unit)
        draws = generator(view.seed, self.name, "held out")
        times = torch.rand(len(valid), generator=draws).to(z.device)
        noise = space.image(torch.randn(held[2].shape, generator=draws).to(z.device))

        def score(read: tuple[Tensor, ...]) -> float:
            """Minus the velocity's error in dB, at the same times and with the same noise whenever it is asked."""
            with torch.inference_mode(), Accelerator.of(net).autocast(precision):
                parts = zip(*(t.split(256) for t in (*read, times, noise)), strict=True)
                errors = torch.cat([matching.errors(*part) for part in parts])
            return -10 * math.log10(max(1e-10, float(errors.mean())))

        batches = IndexBatches(train, 64, read)
        history = fit(
            matching, batches, epochs=max(self.epochs, math.ceil(self.steps / len(batches))), lr=LR, weight_decay=1e-4,
            seed=view.seed, precision=precision, checkpoint=view.workdir / "flow.safetensors" if view.workdir else None,
            resume=True, validate=lambda: score(held), what=f"{self.name} {view.label}".strip(),
            tally=view.reads,
        )  # fmt: skip
        fitted = score(read(torch.arange(len(valid)), torch.Generator()))
        view.record(gain=last_gain(history.scores), gap=fitted - score(held), sampled=1.0)
        return ResidualFlow(net, inverse, space, unit, stretch, precision)

    def _drawn(self, view: View, flow: "ResidualFlow") -> Tensor:
        draws, kept = generator(view.seed, self.name, "draws"), []
        parts = view.z.split(256)
        with task(f"{self.name} draws {view.label}".strip(), len(parts) * self.draws) as show, torch.inference_mode():
            for k, part in enumerate(parts):
                z, guess = flow.inverse.scale(part), flow.inverse.guess(part)
                best, least = guess, torch.full((len(z),), math.inf, device=z.device)
                for draw in range(self.draws):
                    x = (guess + flow.draw(z, guess, self.ode, draws)).clamp(0, 1)
                    far = self._distance(view, flow.inverse, x, z) if self.draws > 1 else torch.zeros_like(least)
                    closer = far < least
                    best, least = torch.where(closer[:, None, None, None], x, best), torch.where(closer, far, least)
                    show(k * self.draws + draw + 1)
                kept.append(best)
        return torch.cat(kept)

    def _distance(self, view: View, inverse: Inverse, x: Tensor, z: Tensor) -> Tensor:
        """Squared distance of an image's features, queried, from z; both in units of their spread. (n,)."""
        seen = torch.stack([inverse.scale(view.query(x)) for _ in range(4 if view.stochastic else 1)]).mean(0)
        return (seen - z).flatten(1).square().mean(1)
