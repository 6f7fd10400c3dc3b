"""GLASS: the search for private images in the latent space of a generator (Li et al., NeurIPS 2023, as released).

The paper brings a StyleGAN2 that others trained; ours is trained on the adversary's images, with latents that are maps
(`splitveil.lab.attacks.parts.generator`), so all weights and rates are our own reading too. The three stages are the
paper's: a rough search from several starts, of which the one nearest in features goes on; a fine one in the latent
space; and one that frees the input of every layer as well (its W+). GLASS++ starts at an encoder's guess. Here that
encoder is the decoder attack followed by the generator's own recognition, and its guess is also the centre of the
latent prior, in units of how far it is off on images that neither was trained with: without evidence nothing moves away
from it.
"""

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.core.progress import task
from splitveil.lab.attacks.base import Attack, frozen, seed_view
from splitveil.lab.attacks.decoder import Inverse, decoder_attack
from splitveil.lab.attacks.parts.generator import AutoEncoder, train_generator
from splitveil.lab.attacks.parts.latents import LatentPoint, LatentSearch, LatentTarget
from splitveil.lab.attacks.parts.likelihood import Likelihood
from splitveil.lab.attacks.view import Knows, View

PRIORS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Weights of the prior tried on the adversary's own images, for the latents and again for the freed inputs."""
TUNED_ON = 16
CHUNK = 128
"""Images searched together."""
FREED = 0.1
"""Spread of the prior on what is added to a layer's input, in units of that input's own."""


class Glass(Attack):
    """A search, through the known edge half, among those that a generator trained on own images draws.

    Search of a generator's latents for the image whose features are nearest to z, then of all its layers' inputs.
    All choices are made on the adversary's own images. Where it may query, the decoder attack (with the same options,
    trained once for both) says where to begin and what to expect; else the search begins at the generator's mean.

    Args:
        width: channels of the generator at its working grid.
        steps: least number of optimiser steps in its training.
        epochs: passes over the adversary's images in its training; more where they are few.
        starts: of the rough search.
        rough: steps of it.
        fine: steps in the latent space.
        free: steps with all inputs free.
        draws: draws averaged a step against a random defence.
        decoder: the decoder to start from, as the registry reads it.
    """

    name: ClassVar[str] = "glass"
    needs = Knows.WEIGHTS | Knows.DEFENSE | Knows.AUX
    scale_free: ClassVar[bool] = True

    def __init__(
        self, *, width: int = 48, steps: int = 600, epochs: int = 4, starts: int = 3, rough: int = 30, fine: int = 60,
        free: int = 60, draws: int = 4, decoder: str = "decoder",
    ) -> None:  # fmt: skip
        if min(width, steps, epochs, starts, rough, fine, free, draws) < 1:
            raise InputError("expected every option of at least 1; use glass:starts=3.")
        self.decoder = decoder_attack(decoder)
        self.width, self.steps, self.epochs, self.starts = width, steps, epochs, starts
        self.rough, self.fine, self.free, self.draws = rough, fine, free, draws

    def run(self, view: View) -> Tensor:
        inverse = self.decoder.trained(view) if Knows.QUERIES in view.knows else None
        seed_view(view, self.name)
        model = self._generator(view)
        aside = view.aux.held_out
        x = view.aux.images(aside)
        own = self._expected(model, inverse, self._features(view, aside))
        likelihood = Likelihood(view, self.draws)
        search = LatentSearch(likelihood, model.generator, self._units(model, own, x))
        parts = self._expected(model, inverse, view.z).split(CHUNK)
        with task(f"{self.name} {view.label}".strip(), len(parts) + 1) as show:
            priors = self._tuned(search, own.part(slice(0, TUNED_ON)), x[:TUNED_ON])
            guesses, blind = [], 0
            for k, part in enumerate(parts):
                show(k + 1, f"priors {priors[0]:g} and {priors[1]:g}")
                blind += search.blind(part)
                start = self._nearest(search, part, priors[0])
                weights = torch.tensor([priors], device=x.device).expand(len(part.z), 2)
                guesses.append(self._refined(search, part, start, weights))
        view.record(draws=likelihood.averaged, gradient=blind / len(view.z))
        return torch.cat(guesses)

    def _generator(self, view: View) -> AutoEncoder:
        """Trained once for all searches with the same generator; it does not look at features."""

        def train(seed: int, workdir: Path | None) -> AutoEncoder:
            torch.manual_seed(seed)
            checkpoint = workdir / "generator.safetensors" if workdir else None
            model = train_generator(
                view.aux, view.image_shape, width=self.width, blocks=2, steps=self.steps, epochs=self.epochs,
                seed=seed, checkpoint=checkpoint, what=f"{self.name} generator {view.label}".strip(),
            )  # fmt: skip
            frozen(model)
            return model

        return view.once(self._key, train)

    @property
    def _key(self) -> str:
        return f"generator:width={self.width},steps={self.steps},epochs={self.epochs}"

    def shares(self, *, stochastic: bool) -> tuple[str, ...]:
        return (*super().shares(stochastic=stochastic), self._key)

    def _features(self, view: View, index: Tensor) -> Tensor:
        """Of the adversary's images; without queries its own copy of the edge tells them."""
        if Knows.QUERIES in view.knows:
            return view.observe(index)
        with torch.no_grad():
            return torch.cat([view.defense(view.edge(view.aux.images(i))) for i in index.split(256)])

    def _expected(self, model: AutoEncoder, inverse: Inverse | None, z: Tensor) -> LatentTarget:
        """The centre of the prior: what the decoder guesses, else the generator's mean."""
        if inverse is None:
            return LatentTarget(
                z, z.new_zeros(len(z), model.generator.length), z.new_zeros(len(z), *model.generator.image)
            )
        with torch.no_grad():
            guess = inverse.guess(z)
            w = torch.cat([model.encode(part) for part in guess.split(256)])
            return LatentTarget(z, w, guess - torch.cat([model.generator(part) for part in w.split(256)]))

    def _units(self, model: AutoEncoder, own: LatentTarget, x: Tensor) -> list[Tensor]:
        """How far the centre is off on images that nothing was trained with, and how much more the layers may hold."""
        with torch.no_grad():
            w = torch.cat([model.encode(part) for part in x.split(256)])
            off = (w - own.w).square().mean(0).sqrt()
            first = model.generator.inputs(w[:256])
            missing = (model.generator(w[:256]) + own.rest[:256] - x[:256]).square().mean().sqrt()
        return [off.clamp_min(1e-3), *(FREED * h.std() for h in first), missing.clamp_min(1e-4)]

    def _nearest(self, search: LatentSearch, target: LatentTarget, prior: float) -> LatentPoint:
        """A short search from the centre and from points about it; each image keeps what is nearest in features."""
        points = [torch.zeros_like(target.w), *(torch.randn_like(target.w) for _ in range(self.starts - 1))]
        if self.starts == 1:
            return (points[0],)
        weights, found, far = torch.full((len(target.z), 2), prior, device=target.z.device), [], []
        for point in points:
            (u,) = search.descend(target, (point,), weights, self.rough, rough=True)
            with torch.no_grad():
                far.append(search.likelihood.to(target.z)(search.image(target, (u,)).clamp(0, 1)))
            found.append(u)
        return (torch.stack(found)[torch.stack(far).argmin(0), torch.arange(len(target.z), device=target.z.device)],)

    def _refined(self, search: LatentSearch, target: LatentTarget, start: LatentPoint, weights: Tensor) -> Tensor:
        """The fine search in the latent space, then with all inputs free. (n, C, H, W)."""
        point = search.descend(target, start, weights, self.fine)
        return self._freed(search, target, point, weights)

    def _freed(self, search: LatentSearch, target: LatentTarget, point: LatentPoint, weights: Tensor) -> Tensor:
        added = tuple(target.w.new_zeros(len(target.z), *shape) for shape in search.net.shifts)
        point = search.descend(target, (*point, *added), weights, self.free)
        with torch.no_grad():
            return search.image(target, point).clamp(0, 1)

    def _tuned(self, search: LatentSearch, own: LatentTarget, x: Tensor) -> tuple[float, float]:
        """Weights of both priors that recover the adversary's own images best, first the latents' and then the rest."""
        many = len(PRIORS)
        targets, tried = own.repeat(many), torch.tensor(PRIORS, device=x.device).repeat_interleave(len(x))

        def best(x_hat: Tensor) -> int:
            error = (x_hat.clamp(0, 1) - x.repeat(many, 1, 1, 1)).square().mean((1, 2, 3)).clamp_min(1e-10)
            return int(error.log().reshape(many, -1).mean(1).argmin())

        start: LatentPoint = (torch.zeros_like(targets.w),)
        (u,) = search.descend(targets, start, tried[:, None].expand(-1, 2), self.fine)
        with torch.no_grad():
            k = best(search.image(targets, (u,)))
        chosen = u.reshape(many, len(x), -1)[k].repeat(many, 1)
        weights = torch.stack([torch.full_like(tried, PRIORS[k]), tried], 1)
        return PRIORS[k], PRIORS[best(self._freed(search, targets, (chosen,), weights))]
