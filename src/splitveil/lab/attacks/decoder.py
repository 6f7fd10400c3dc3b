"""The inverse network: a decoder trained on the adversary's images and their features (He et al. 2019, section 5)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack
from splitveil.lab.attacks.linear import fit_linear
from splitveil.lab.attacks.parts.blocks import BLOCKS
from splitveil.lab.attacks.parts.decoder_network import Decoder
from splitveil.lab.attacks.parts.features import ChannelScale, map_shape
from splitveil.lab.attacks.parts.perceptual import Eye, trained_eye
from splitveil.lab.attacks.view import Knows, View
from splitveil.lab.seeds import derive
from splitveil.lab.tensors import psnr
from splitveil.lab.training import History, IndexBatches, fit, infer, native_precision

SIZES = {"tiny": (24, 2), "small": (64, 4), "medium": (96, 6), "large": (128, 10)}
"""Width and residual blocks per resolution."""
TRIALS = (("small", 2e-3), ("medium", 1e-3), ("medium", 2e-3))
"""Sizes and peak learning rates between which ``auto`` chooses."""
TRIAL = 0.08
"""Share of the steps that each trial gets."""
EXACT_DB = 60.0
"""Where the linear inverse reaches this on held-out images there is nothing left to learn."""
PERCEPTUAL = 0.02
"""Weight of the perceptual distance beside the squared error of pixels."""


class DecoderLoss(nn.Module):
    """Mean squared pixel error of the decoder, with a perceptual distance where there is an eye: (z, x) -> scalar."""

    def __init__(self, decoder: nn.Module, eye: Eye | None) -> None:
        super().__init__()
        self.decoder, self.eye = decoder, eye

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        x_hat = self.decoder(z)
        error = F.mse_loss(x_hat, x)
        return error if self.eye is None else error + PERCEPTUAL * self.eye.distance(x_hat, x)


@dataclass(frozen=True, slots=True)
class Inverse:
    """A trained decoder with what it needs before it, and what its training tells."""

    scale: ChannelScale
    decoder: Decoder
    precision: str
    evidence: dict[str, float]

    def guess(self, z: Tensor) -> Tensor:
        """z: (N, *cut) -> (N, C, H, W)."""
        return infer(self.decoder, (self.scale(part) for part in z.split(256)), self.precision)


class InverseNetwork(Attack):
    """A network, trained on the adversary's own images and their features, that turns features into images.

    Decoder trained on the adversary's images and their defended features, with fresh noise in every batch.
    A linear inverse in closed form comes first, the net learns what it leaves over. Features of the adversary's images
    are computed once; each step reads them from memory. The weights kept are those of the epoch that was best on images
    that the adversary set aside, the linear inverse alone included.

    Args:
        size: tiny, small, medium or large; ``auto`` tries `TRIALS` and keeps what is best on the images set aside.
        epochs: passes over the adversary's images; more where they are few, so that there are at least `steps`.
        steps: least number of optimiser steps.
        batch: images a step.
        lr: peak learning rate; with ``size=auto`` it is chosen too.
        kind: blocks, one of residual, squeeze, large_kernel, multi_scale, attention (Golden Partition Zone).
        frequency: features' spectrum as further input (Golden Partition Zone).
        loss: ``l2`` or ``perceptual``, which adds a distance in the features of a classifier of its own.
    """

    name: ClassVar[str] = "decoder"
    needs = Knows.AUX | Knows.QUERIES
    scale_free: ClassVar[bool] = True

    def __init__(
        self,
        *,
        size: str = "small",
        epochs: int = 6,
        steps: int = 600,
        batch: int = 64,
        lr: float = 2e-3,
        kind: str = "residual",
        frequency: bool = False,
        loss: str = "l2",
    ) -> None:
        for what, value, known in (
            ("decoder size", size, (*SIZES, "auto")), ("kind of block", kind, tuple(BLOCKS)),
            ("loss", loss, ("l2", "perceptual")),
        ):  # fmt: skip
            if value not in known:
                raise InputError(f"unknown {what} {value!r}; choose from {', '.join(known)}.")
        if min(epochs, steps, batch) < 1 or lr <= 0:
            raise InputError("expected epochs, steps and batch of at least 1 and lr > 0; use decoder:epochs=6.")
        self.size, self.epochs, self.steps, self.batch, self.lr = size, epochs, steps, batch, lr
        self.kind, self.frequency, self.loss = kind, frequency, loss

    def run(self, view: View) -> Tensor:
        inverse = self.trained(view)
        view.record(**inverse.evidence)
        return inverse.guess(view.z)

    def shares(self, *, stochastic: bool) -> tuple[str, ...]:
        return (repr(self),)

    def trained(self, view: View) -> Inverse:
        """The inverse network of this view, trained once for all attacks that ask for the same."""
        view.check(self.needs, self.name)
        return view.once(repr(self), lambda seed, workdir: self._train(view, seed, workdir))

    def _train(self, view: View, seed: int, workdir: Path | None) -> Inverse:
        torch.manual_seed(seed)
        aux, what = view.aux, f"{self.name} {view.label}".strip()
        valid = aux.held_out
        train = len(aux) - len(valid)
        scale = ChannelScale(view.observe(torch.arange(min(train, 2048))))
        mean = aux.images().mean(0)
        valid_z, valid_x = scale(view.observe(valid)), aux.images(valid)

        def pairs(index: Tensor) -> tuple[Tensor, Tensor]:
            return scale(view.observe(index)), aux.images(index)

        linear = fit_linear(pairs, train, (valid_z, valid_x), mean, seed, dense=False) if self._near(view) else None
        eye = trained_eye(aux, derive(seed, "eye")) if self.loss == "perceptual" else None

        def build(size: str) -> Decoder:
            torch.manual_seed(derive(seed, size))
            net = Decoder(
                tuple(view.z.shape[1:]), view.image_shape, mean, *SIZES[size],
                kind=self.kind, frequency=self.frequency, linear=linear,
            )  # fmt: skip
            net.to(view.z.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            return net

        def score(net: Decoder) -> float:
            return mean_psnr(infer(net, valid_z.split(256), precision), valid_x)

        def train_net(net: Decoder, epochs: int, lr: float, checkpoint: str, what: str) -> History:
            read = IndexBatches(train, self.batch, lambda i, _: pairs(i))
            return fit(
                DecoderLoss(net, eye), read, epochs=epochs, lr=lr, weight_decay=1e-4, seed=seed, precision=precision,
                checkpoint=workdir / f"{checkpoint}.safetensors" if workdir else None, resume=True,
                validate=lambda: score(net), what=what, tally=view.reads,
            )  # fmt: skip

        epochs = max(self.epochs, math.ceil(self.steps / math.ceil(train / self.batch)))
        size, lr = self.size, self.lr
        precision = native_precision(view.z)
        alone = mean_psnr(linear(valid_z), valid_x) if linear is not None else -math.inf
        if alone > EXACT_DB:
            return Inverse(scale, without_body(build("tiny")), "32-true", {"gain": 0.0, "gap": 0.0})
        if size == "auto":
            brief, found = max(1, round(TRIAL * epochs)), dict[tuple[str, float], float]()
            for size, lr in TRIALS:
                trial = f"trial-{size}-{lr:g}"
                found[size, lr] = max(train_net(build(size), brief, lr, trial, f"{what} {trial}").scores)
            size, lr = max(found, key=lambda k: found[k])
        net = build(size)
        history = train_net(net, epochs, lr, "decoder", what)
        if max(history.scores) < alone:
            net, precision = without_body(net), "32-true"
        own = torch.arange(min(train, len(valid)))
        fitted = mean_psnr(infer(net, scale(view.observe(own)).split(256), precision), aux.images(own))
        evidence = {"gain": last_gain(history.scores), "gap": fitted - score(net)}
        return Inverse(scale, net, precision, evidence)

    def _near(self, view: View) -> bool:
        """Whether features lie on a grid of at least half the image's side: deeper ones are too far from linear.

        There the net would have to mend what the linear inverse spoils (ResNet-20, layer3: 16.8 dB with, 17.4 without).
        """
        _, h, w = map_shape(tuple(view.z.shape[1:]))
        return 2 * h >= view.image_shape[1] and 2 * w >= view.image_shape[2]


def mean_psnr(x_hat: Tensor, x: Tensor) -> float:
    """Mean over images in dB, the guess clipped."""
    return float(psnr(x_hat.clamp(0, 1), x).mean())


def last_gain(scores: Sequence[float]) -> float:
    """What the best score gained over the last tenth of the epochs, in dB; within an epoch it is taken to be steady."""
    if len(scores) < 2:
        return math.inf
    best = [max(scores[: k + 1]) for k in range(len(scores))]
    tenth = 0.1 * len(scores)
    back = max(1, round(tenth))
    return (best[-1] - best[-1 - back]) * tenth / back


def without_body(net: Decoder) -> Decoder:
    """The same with the linear inverse alone speaking."""
    nn.init.zeros_(net.head.weight)
    nn.init.zeros_(net.head.bias)  # type: ignore[arg-type]
    return net.eval()


def decoder_attack(spec: str) -> InverseNetwork:
    """The decoder attack that `spec` describes, such as ``decoder:size=tiny``.

    Raises:
        InputError: another attack, or options that it does not have.
    """
    found = ATTACKS.build(spec)
    if not isinstance(found, InverseNetwork):
        raise InputError(f"expected a decoder to start from, got {spec!r}; use [decoder:size=small].")
    return found
