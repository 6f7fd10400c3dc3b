"""How well a linear map gives the images back: a decoder in closed form, about a second a cut.

The audit's `linear` attack searches windows and penalties on thousands of images; this is its little sister, for
ordering cuts before anything is attacked. It is no attack: where it fails, another decoder may not.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from splitveil.attacks.features import map_shape
from splitveil.attacks.linear import LinearInverse
from splitveil.auditing.intervals import bootstrap
from splitveil.errors import InputError
from splitveil.seeds import generator

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
        rows: (N, D), the same in units of each channel's spread (`splitveil.metrics.clusters.standardised`).
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
    for solutions in (_local(rows.reshape(z.shape), x, train, mean, seed), _dense(gram, x, train, mean)):
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
    return LinearError(float(each.mean()), bootstrap(each[None], seed)[0], words)


Solutions = Iterator[tuple[list[Tensor], str]]
"""For each penalty, guesses of the images that the map was not made from, and what kind of map it is."""


def _local(z: Tensor, x: Tensor, train: Tensor, mean: Tensor, seed: int) -> Solutions:
    """One window of features for all positions: many more examples, where maps are wide.

    Added to the mean image, or upon nothing: a map that is the same everywhere cannot undo what it is added to.
    """
    features, image = tuple(z.shape[1:]), (mean.shape[0], mean.shape[1], mean.shape[2])
    c, h, w = map_shape(features)
    window = next((k for k in WINDOWS if c * k * k <= WIDEST and k <= 2 * max(h, w) - 1), 0)
    if h * w == 1 or not window:
        return
    maps = [LinearInverse(features, image, window, base) for base in (mean, torch.zeros_like(mean))]
    positions = math.prod(maps[0].grid)
    draws, keep = generator(seed, "positions", window), min(1.0, ROWS / (len(train) * positions))
    inputs, targets = [], []
    for index in train.split(256):
        chosen = torch.rand(len(index), positions, generator=draws) < keep
        inputs.append(maps[0].inputs(z[index], chosen))
        targets.append(torch.cat([m.targets(x[index] - m.base) for m in maps], 2)[chosen])
    a, b = torch.cat(inputs).double(), torch.cat(targets).double()
    a = torch.cat([a, torch.ones_like(a[:, :1])], 1)
    square, cross = a.T @ a, a.T @ b
    ridge = torch.eye(len(square), dtype=a.dtype) * square.diagonal()[:-1].mean().clamp_min(1e-12)
    ridge[-1, -1] = 0
    for penalty in PENALTIES:
        factor, failed = torch.linalg.cholesky_ex(square + penalty * ridge)
        if int(failed):
            continue
        solved = torch.cholesky_solve(cross, factor).float().chunk(len(maps), 1)
        for m, part in zip(maps, solved, strict=True):
            m.weight.copy_(part[:-1].T)
            m.bias.copy_(part[-1])
        others = z[len(train) :].split(256)
        yield [torch.cat([m(part) for part in others]) for m in maps], f"windows of {window} x {window} features"


def _dense(gram: Tensor, x: Tensor, train: Tensor, mean: Tensor) -> Solutions:
    """All features to all pixels, in the dual form: as many equations as images, however wide the features."""
    m = len(train)
    across = gram[:, :m].double()
    kernel = across - across[:m].mean(0) - across.mean(1, keepdim=True) + across[:m].mean()
    own, others = kernel[:m], kernel[m:]
    scale, eye = own.diagonal().mean().clamp_min(1e-12), torch.eye(m, dtype=own.dtype)
    targets = (x[train] - mean).flatten(1)
    for penalty in PENALTIES:
        factor, failed = torch.linalg.cholesky_ex(own + penalty * scale * eye)
        if not int(failed):
            weights = torch.cholesky_solve(others.T.contiguous(), factor).T
            yield [mean + (weights.float() @ targets).reshape(-1, *mean.shape)], "all features to all pixels"
