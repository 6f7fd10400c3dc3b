"""A generator of images trained on the adversary's own: a variational auto-encoder with a whitened normal latent.

Training is that of the sigma-VAE (Rybkin et al., ICML 2021, section 3): the noise of the likelihood is the error that
is left, so that nothing weighs pixels against bits. Two things are ours. The latent is a small map, since a short
vector keeps no detail. And after training the latents of the adversary's images are whitened with their full
covariance, so that a standard normal vector is a latent as natural images have them, near and far places together.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.lab.attacks.parts.blocks import ScaledBlock
from splitveil.lab.attacks.view import Aux
from splitveil.lab.training import IndexBatches, fit, infer, native_precision

LATENT = 16
"""Channels of the latent map, whose sides are a quarter of those of a 32 x 32 image."""
WHOLE = 4096
"""Latents of at most this many numbers are whitened with their full covariance, longer ones each for itself."""
LR = 2e-3
CLEAR = -4.0
"""Log-variance of the latents before training."""


class Generator(nn.Module):
    """Standard normal vectors to images; the inputs of its stages can be shifted too, as in the W+ space of StyleGAN.

    Args:
        image: (C, H, W).
        mean: (C, H, W), mean image of the adversary; the net learns the difference to it.
        width: channels at the working grid; twice as many below it.
        blocks: residual blocks a resolution.

    Attributes:
        grid: (L, h, w) of the latent map.
        length: D = L h w, numbers in a latent.
        shifts: shape of what can be added to the input of each stage and to the image, deepest first.
    """

    mean: Tensor
    centre: Tensor
    root: Tensor

    def __init__(self, image: tuple[int, int, int], mean: Tensor, width: int, blocks: int) -> None:
        super().__init__()
        channels, *size = image
        self.width, self.blocks = width, blocks
        self.image, self.factor = image, 1 if max(size) < 16 else 2 if max(size) <= 48 else 4 if max(size) <= 128 else 8
        low = [math.ceil(s / self.factor / 2) for s in size]
        self.grid, self.length = (LATENT, *low), LATENT * math.prod(low)
        self.shifts = ((2 * width, *low), (width, *(2 * s for s in low)), image)
        self.enter = nn.Conv2d(LATENT, 2 * width, 3, 1, 1)
        self.stages = nn.ModuleList(
            [
                nn.Sequential(
                    *(ScaledBlock(2 * width, 2 * blocks) for _ in range(2 * blocks)),
                    nn.Conv2d(2 * width, 4 * width, 3, 1, 1),
                    nn.PixelShuffle(2),
                ),
                nn.Sequential(
                    *(ScaledBlock(width, blocks) for _ in range(blocks)),
                    nn.ReLU(),
                    nn.Conv2d(width, channels * self.factor**2, 3, 1, 1),
                    nn.PixelShuffle(self.factor),
                ),
            ]
        )
        self.register_buffer("mean", mean)
        self.register_buffer("centre", torch.zeros(self.length))
        self.register_buffer("root", torch.ones(self.length))

    def forward(self, w: Tensor, shifts: Sequence[Tensor] = ()) -> Tensor:
        """w: (N, D) about standard normal; shifts: none, or (N, *shape) for each of `shifts` -> (N, C, H, W)."""
        return self.draw(self.latent(w), shifts)

    def latent(self, w: Tensor) -> Tensor:
        """(N, D) -> latent map (N, L, h, w)."""
        with torch.autocast(w.device.type, enabled=False):
            spread = w @ self.root.T if self.root.ndim == 2 else w * self.root
            latent: Tensor = (self.centre + spread).unflatten(1, self.grid)
            return latent

    def white(self, latent: Tensor) -> Tensor:
        """The inverse of `latent`."""
        centred = latent.flatten(1) - self.centre
        # The columns of the root are orthogonal: its inverse is its transpose over their squared lengths.
        return centred @ (self.root / self.root.square().sum(0)) if self.root.ndim == 2 else centred / self.root

    def draw(self, latent: Tensor, shifts: Sequence[Tensor] = ()) -> Tensor:
        """Latent map (N, L, h, w) to image (N, C, H, W), not clipped."""
        h = self.enter(latent)
        for stage, shift in zip(self.stages, shifts or (None, None), strict=False):
            h = stage(h if shift is None else h + shift)
        _, height, width = self.image
        x: Tensor = self.mean + h[..., :height, :width].float()
        return x + shifts[-1] if shifts else x

    def inputs(self, w: Tensor) -> list[Tensor]:
        """What each stage gets where nothing is shifted, deepest first. w: (N, D)."""
        found = [self.enter(self.latent(w))]
        for stage in self.stages[:-1]:
            found.append(stage(found[-1]))
        return found

    def whiten(self, mean: Tensor, variance: Tensor) -> None:
        """Make standard normal vectors latents as the given ones are.

        Args:
            mean: (M, L, h, w), of the posterior of each image.
            variance: (M, L, h, w), likewise. It also keeps directions open that too few images leave flat.
        """
        flat, noise = mean.flatten(1), variance.flatten(1).mean(0)
        self.centre = flat.mean(0)
        centred = flat - self.centre
        if self.length > WHOLE:
            self.root = (centred.square().mean(0) + noise).sqrt()
            return
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(flat) + noise.diag())
        self.root = vectors * values.clamp_min(1e-6).sqrt()


class Recognition(nn.Module):
    """Image to its latent's mean and log-variance, each (N, L, h, w). x: (N, C, H, W)."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        (channels, *size), width, blocks = generator.image, generator.width, generator.blocks
        self.factor, (_, *low) = generator.factor, generator.grid
        self.pad = (0, 2 * low[1] * self.factor - size[1], 0, 2 * low[0] * self.factor - size[0])
        last = nn.Conv2d(2 * width, 2 * LATENT, 3, 1, 1)
        with torch.no_grad():
            # Latents that begin as all noise are given up before they say anything.
            last.bias[LATENT:] = CLEAR  # type: ignore[index]
        self.body = nn.Sequential(
            nn.PixelUnshuffle(self.factor),
            nn.Conv2d(channels * self.factor**2, width, 3, 1, 1),
            *(ScaledBlock(width, blocks) for _ in range(blocks)),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * width, 2 * width, 3, 1, 1),
            *(ScaledBlock(2 * width, blocks) for _ in range(blocks)),
            nn.ReLU(),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) -> (N, 2 L, h, w)."""
        out: Tensor = self.body(F.pad(x, self.pad, mode="replicate")).float()
        return out


class AutoEncoder(nn.Module):
    """Generator and recognition; called, it gives the negative evidence bound in nats a number of the image.

    Each image has a likelihood noise of its own (our reading): the mean of log errors is what PSNR averages.
    x: (N, C, H, W) -> (N,).
    """

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator, self.recognition = generator, Recognition(generator)

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.posterior(x)
        latent = mean + variance.sqrt() * torch.randn_like(mean)
        error = (self.generator.draw(latent) - x).square().mean((1, 2, 3))
        nats = 0.5 * (mean.square() + variance - 1 - variance.log()).flatten(1).sum(1)
        return 0.5 * (error + 1e-5).log() + nats / x[0].numel()

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the latent map, each (N, L, h, w)."""
        mean, log_variance = self.recognition(x - self.generator.mean).chunk(2, 1)
        return mean, log_variance.clamp(-12, 4).exp()

    def encode(self, x: Tensor) -> Tensor:
        """The whitened latent of an image: (N, C, H, W) -> (N, D)."""
        with torch.no_grad():
            return self.generator.white(self.posterior(x)[0])


class Average(nn.Module):
    """Mean of what a module gives for a batch."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.module(x).mean()
        return out


def train_generator(
    aux: Aux, image: tuple[int, int, int], *, width: int, blocks: int, steps: int, epochs: int, seed: int,
    checkpoint: Path | None, what: str,
) -> AutoEncoder:  # fmt: skip
    """A generator of images like the adversary's and its recognition, where the images are, in eval mode.

    Args:
        aux: the adversary's images; those set aside only judge epochs.
        image: (C, H, W).
        width: channels at the working grid.
        blocks: residual blocks a resolution.
        steps: least number of optimiser steps.
        epochs: passes over the images; more where they are few.
        seed: of shuffling and noise; initialisation draws from torch's global generator.
        checkpoint: file to resume from, None for none.
        what: for the progress bar.
    """
    aside = aux.held_out
    train = len(aux) - len(aside)
    generator = Generator(image, aux.images().mean(0), width, blocks)
    both = AutoEncoder(generator)
    both.to(aux.x.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    precision = native_precision(aux.x)

    def validate() -> float:
        parts = (aux.images(i) for i in aside.split(256))
        return -infer(both, parts, precision).mean().item()

    batches = IndexBatches(train, 64, lambda index, _: (aux.images(index),))
    fit(
        Average(both), batches, epochs=max(epochs, math.ceil(steps / len(batches))), lr=LR, weight_decay=1e-4,
        seed=seed, precision=precision, checkpoint=checkpoint, resume=True, validate=validate, what=what,
    )  # fmt: skip
    with torch.inference_mode():
        posteriors = [both.posterior(aux.images(i)) for i in torch.arange(min(len(aux), 8192)).split(256)]
    generator.whiten(torch.cat([m for m, _ in posteriors]), torch.cat([v for _, v in posteriors]))
    return both
