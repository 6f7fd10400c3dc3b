"""How well a linear map gives the images back: a decoder in closed form, about a second a cut.

The audit's `linear` attack searches windows and penalties on thousands of images; this is its little sister, for
ordering cuts before anything is attacked. It is no attack: where it fails, another decoder may not.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.attacks.linear import LinearInverse
from splitveil.lab.attacks.parts.features import map_shape
from splitveil.lab.attacks.parts.ridge import ridge_weights
from splitveil.lab.auditing.intervals import bootstrap
from splitveil.lab.seeds import generator

PENALTIES = (1e-6, 1e-4, 1e-2, 0.1, 1.0, 10.0)
"""In units of the mean square of an input; held-out images choose."""
WIDEST = 600
"""Inputs of the local map at most: channels times window."""
WINDOWS = (5, 3, 1)
ROWS = 20_000
"""Positions from which the local map is estimated."""
HELD = 0.15
"""Share of the images that choose window and penalty, and share that the error is measured on."""
SOLVED = 0.01
"""Share of the mean image's error below which no second map is tried."""
LEAST = 40


@dataclass(frozen=True, slots=True)
class LinearError:
    """Mean squared error per element, in [0, 1] pixels, of the better of two linear decoders.

    Attributes:
        mse: on images that neither map nor penalty was chosen by.
        interval: 95 % bootstrap over these.
        words: which map, and how many images made, chose and judged it.
    """

    mse: float
    interval: tuple[float, float]
    words: str


def linear_error(z: Tensor, rows: Tensor, gram: Tensor, x: Tensor, *, seed: int = 0) -> LinearError:
    """Error of ridge regression from features to pixels: one window for all positions, or all features to all pixels.

    Args:
        z: (N, *cut).
        rows: (N, D), the same in units of each channel's spread (`splitveil.lab.metrics.clusters.standardised`).
        gram: (N, N), products of `rows`.
        x: (N, C, H, W) in [0, 1], in no order of their own: the last ones judge.
        seed: of the local map's positions and of the bootstrap.

    Raises:
        InputError: fewer than 40 images, or counts that do not fit.
    """
    n = len(z)
    if n < LEAST or {len(rows), len(gram), len(x)} != {n}:
        raise InputError(f"expected at least {LEAST} images with features, got {n} and {len(x)}; give more images.")
    held = round(HELD * n)
    train, choosing, judging = torch.arange(n).split([n - 2 * held, held, held])
    mean = x[train].mean(0)
    plain = least = float((x[choosing] - mean).square().mean())
    best, words = mean.expand_as(x[judging]), "the mean image"
    bases = [mean, torch.zeros_like(mean)]
    for solutions in (local_maps(rows.reshape(z.shape), x, len(train), bases, seed), dense_maps(gram, x, len(train))):
        before = math.inf
        for guesses, what in solutions:
            errors = [float((guess[:held] - x[choosing]).square().mean()) for guess in guesses]
            if min(errors) < least:
                best, words, least = guesses[errors.index(min(errors))][held:], what, min(errors)
            if min(errors) > before:
                break
            before = min(errors)
        if least < SOLVED * plain:
            break
    each = (best.clamp(0, 1) - x[judging]).square().flatten(1).mean(1)
    words = f"ridge regression, {words}; {len(train)} images made it, {held} chose it, {held} judged it"
    return LinearError(float(each.mean()), bootstrap(each[None].cpu(), seed)[0], words)


Solutions = Iterator[tuple[list[Tensor], str]]
"""For each penalty, guesses of the images that the map was not made from, and what kind of map it is."""


def local_maps(
    z: Tensor,
    x: Tensor,
    made: int,
    bases: Sequence[Tensor],
    seed: int,
    *,
    windows: Sequence[int] = WINDOWS,
    rows: int = ROWS,
) -> Solutions:
    """One window of features for all positions: many more examples, where maps are wide.

    Args:
        z: (N, *cut), in units of each channel's spread.
        x: (N, C, H, W) in [0, 1].
        made: the first so many images make the maps.
        bases: (C, H, W) each, what a map of its own adds to: the mean image, or nothing, since a map that is the same
            everywhere cannot undo what it is added to.
        seed: of the choice of positions.
        windows: sides, odd, the first that is narrow enough is taken.
        rows: positions that the maps are made from, about.
    """
    features, image = tuple(z.shape[1:]), (x.shape[1], x.shape[2], x.shape[3])
    c, h, w = map_shape(features)
    window = next((k for k in windows if c * k * k <= WIDEST and k <= 2 * max(h, w) - 1), 0)
    if h * w == 1 or not window:
        return
    maps = [LinearInverse(features, image, window, base) for base in bases]
    positions = math.prod(maps[0].grid)
    draws, keep = generator(seed, "positions", window), min(1.0, rows / (made * positions))
    inputs, targets = [], []
    for index in torch.arange(made).split(256):
        chosen = (torch.rand(len(index), positions, generator=draws) < keep).to(z.device)
        inputs.append(maps[0].inputs(z[index], chosen))
        targets.append(torch.cat([m.targets(x[index] - m.base) for m in maps], 2)[chosen])
    a, b = torch.cat(inputs).double(), torch.cat(targets).double()
    a = torch.cat([a, torch.ones_like(a[:, :1])], 1)
    for weights in ridge_weights(a.T @ a, a.T @ b, PENALTIES, constant=True):
        for m, part in zip(maps, weights.float().chunk(len(maps), 1), strict=True):
            m.weight.copy_(part[:-1].T)
            m.bias.copy_(part[-1])
        others = z[made:].split(256)
        yield [torch.cat([m(part) for part in others]) for m in maps], f"windows of {window} x {window} features"


def dense_maps(gram: Tensor, x: Tensor, made: int) -> Solutions:
    """All features to all pixels, in the dual form: as many equations as images, however wide the features.

    Args:
        gram: (N, N), products of the images' features.
        x: (N, C, H, W) in [0, 1].
        made: the first so many images make the maps.
    """
    mean = x[:made].mean(0)
    own, others = centred(gram, made)
    for weights in ridge_weights(own, (x[:made] - mean).flatten(1), PENALTIES):
        yield [mean + (others @ weights).float().reshape(-1, *mean.shape)], "all features to all pixels"


def centred(gram: Tensor, made: int) -> tuple[Tensor, Tensor]:
    """Products of features about the mean of the first images: (made, made) and (others, made), float64."""
    across = gram[:, :made].double()
    kernel = across - across[:made].mean(0) - across.mean(1, keepdim=True) + across[:made].mean()
    return kernel[:made], kernel[made:]
