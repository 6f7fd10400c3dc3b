"""Fisher information of the data themselves, Tr S = E|grad log p(x)|^2, which a floor for any adversary needs.

Images have no density: pixels are quantised and many are exactly 0 or 1. The van Trees inequality wants a density that
is smooth and vanishes where its support ends. S is therefore that of x + s n, n standard normal, s the `smoothing`, and
a floor that uses it speaks about inputs blurred by that noise (our reading; s = 0.1 as in the spectrum-aware bound).

The true p is unknown, so Tr S is an estimate; a larger one gives a lower, more careful floor:

* `noise_score` is no estimate: the blur alone keeps Tr S at or below d / s^2 (convexity of Fisher information).
* `gaussian_score` is a lower estimate: of all densities of one covariance the Gaussian has the least information. The
  floor from it is optimistic. Shrinking errs in the same direction, few images in the other.
* `matched_scores` learns the score; E|score|^2 of a net that fits badly may err either way, so it comes with a lower
  bound that holds for any net.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.seeds import generator
from splitveil.lab.training import IndexBatches, fit, infer

SMOOTHING = 0.1
"""Standard deviation of the blur, in units of the pixel range."""
HELD_OUT, DRAWS, BATCH = 0.2, 4, 128
BLOCKS = 3


@dataclass(frozen=True, slots=True)
class ScoreFunction:
    """Fisher information of the prior, its trace.

    Attributes:
        trace: Tr S for pixels in [0, 1], the estimate.
        at_least: Tr S is no smaller, up to sampling.
        at_most: Tr S is no larger, for certain.
        method: how `trace` was found.
        smoothing: standard deviation of the blur.
        samples: images that it was found from.
        d: elements of one input.
    """

    trace: float
    at_least: float
    at_most: float
    method: str
    smoothing: float
    samples: int
    d: int


@dataclass(frozen=True, slots=True)
class MatchedScores:
    """Learned scores at blurred images that the net did not train on. values: (K, d), float64."""

    values: Tensor
    score: ScoreFunction

    @property
    def information(self) -> Tensor:
        """S itself, E[score score^T]: (d, d), float64. Its rank is at most K."""
        return self.values.T @ self.values / len(self.values)


class Denoiser(nn.Module):
    """Predicts the standard normal noise in a blurred image: a linear part beside a norm-free residual net.

    It begins as the answer for white Gaussian images of the same mean and variance.

    Args:
        images: (M, C, H, W), for mean and variance.
        smoothing: strength of the noise.
        width: channels.
    """

    centre: Tensor

    def __init__(self, images: Tensor, smoothing: float, width: int) -> None:
        super().__init__()
        centre = images.mean(0)
        variance = (images - centre).square().mean().item() + smoothing**2
        self.register_buffer("centre", centre)
        self.unit = variance**0.5
        self.linear = nn.Conv2d(len(centre), len(centre), 5, padding=2)
        self.enter = nn.Conv2d(len(centre), width, 3, padding=1)
        self.first, self.second = (
            nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(BLOCKS)) for _ in range(2)
        )
        self.head = nn.Conv2d(width, len(centre), 3, padding=1)
        for layer in (self.linear, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.dirac_(self.linear.weight)
        with torch.no_grad():
            self.linear.weight.mul_(smoothing / self.unit)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W), blurred -> (N, C, H, W)."""
        x = (x - self.centre) / self.unit
        h = self.enter(x)
        for first, second in zip(self.first, self.second, strict=True):
            h = h + BLOCKS**-0.5 * second(F.silu(first(F.silu(h))))
        out: Tensor = self.linear(x) + self.head(F.silu(h))
        return out


class DenoisingMatching(nn.Module):
    """Mean squared error of the predicted noise (Vincent 2011). x: (N, C, H, W), clean -> scalar."""

    def __init__(self, denoiser: Denoiser, smoothing: float) -> None:
        super().__init__()
        self.denoiser, self.smoothing = denoiser, smoothing

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn_like(x)
        guess: Tensor = self.denoiser(x + self.smoothing * noise)
        return (guess.float() - noise).square().mean()


def smoothed(x: Tensor, smoothing: float, seed: int = 0) -> Tensor:
    """Draws from the density that S belongs to, x + smoothing * n, not clipped. x: (N, ...) -> same shape."""
    return x + smoothing * torch.randn(x.shape, generator=generator(seed, "smoothing")).to(x)


def noise_score(d: int, smoothing: float = SMOOTHING) -> ScoreFunction:
    """What holds for every prior after the blur, Tr S <= d / smoothing^2: a sum is no more informative than its noise.

    Raises:
        InputError: no smoothing.
    """
    _check(smoothing, least=1e-6)
    most = d / smoothing**2
    return ScoreFunction(most, 0.0, most, "smoothing alone", smoothing, 0, d)


def gaussian_score(x: Tensor, *, smoothing: float = SMOOTHING) -> ScoreFunction:
    """Tr S of a Gaussian with the images' covariance, a lower estimate of the true one. x: (M, ...) in [0, 1].

    Raises:
        InputError: fewer than two images, or a negative smoothing.
    """
    d = x[0].numel()
    trace: float = torch.linalg.eigvalsh(covariance(x, smoothing)).reciprocal().sum().item()
    return ScoreFunction(trace, trace, _most(d, smoothing), "gaussian, Ledoit-Wolf covariance", smoothing, len(x), d)


def gaussian_information(x: Tensor, *, smoothing: float = SMOOTHING) -> Tensor:
    """S of a Gaussian with the images' covariance, its inverse: x: (M, ...) -> (d, d), float64.

    Raises:
        InputError: fewer than two images, or a negative smoothing.
    """
    found: Tensor = torch.linalg.inv(covariance(x, smoothing))
    return found


def covariance(x: Tensor, smoothing: float) -> Tensor:
    """Covariance of blurred images, shrunk as Ledoit and Wolf (2004) before the blur: (M, ...) -> (d, d), float64.

    Raises:
        InputError: fewer than two images, or a negative smoothing.
    """
    from sklearn.covariance import ledoit_wolf

    _check(smoothing, least=0.0)
    if len(x) < 2:
        raise InputError(f"expected at least 2 images for a covariance, got {len(x)}; give more images of the data.")
    shrunk, _ = ledoit_wolf(x.detach().flatten(1).cpu().double().numpy())
    found = torch.from_numpy(shrunk)
    return found + smoothing**2 * torch.eye(len(found), dtype=torch.float64)


def matched_scores(
    x: Tensor, *, smoothing: float = SMOOTHING, epochs: int = 20, width: int = 32, lr: float = 2e-3, seed: int = 0
) -> MatchedScores:
    """Scores of blurred images by denoising score matching (Vincent 2011), evaluated on a fifth that is held out.

    Training minimises ``E|e(x + s n) - n|^2``; the score is ``-e / s`` and `trace` is its mean squared norm. For any
    e, ``E[2 e.n - |e|^2] / s^2 <= Tr S``, with equality for the true score: that is `at_least`.

    Args:
        x: (M, C, H, W) in [0, 1], M of 10 or more; the defender's images or the adversary's, never both.
        smoothing: s, above 0.
        epochs: passes over the images.
        width: channels of the net.
        lr: peak learning rate.
        seed: of the split, the weights, the noise.

    Raises:
        InputError: too few images, no smoothing, or not images.
    """
    _check(smoothing, least=1e-6)
    if x.ndim != 4 or len(x) < 10:
        raise InputError(f"expected 10 images (M, C, H, W) or more, got {tuple(x.shape)}; use gaussian_score instead.")
    order = torch.randperm(len(x), generator=generator(seed, "held out"))
    held, known = (x[i].float() for i in order.tensor_split([max(1, round(HELD_OUT * len(x)))]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Denoiser(known, smoothing, width).to(x.device)
        batches = IndexBatches(len(known), BATCH, lambda index, _: (known[index],))
        fit(DenoisingMatching(net, smoothing), batches, epochs=epochs, lr=lr, seed=seed, what="score of the data")
    noise = torch.randn((DRAWS, *held.shape), generator=generator(seed, "evaluation")).flatten(0, 1).to(x.device)
    blurred = held.repeat(DRAWS, 1, 1, 1) + smoothing * noise
    guess = infer(net, blurred.split(BATCH)).flatten(1).cpu().double()
    noise = noise.cpu()
    d, unit = held[0].numel(), smoothing**2
    trace = guess.square().sum(1).mean().item() / unit
    least = (2 * guess * noise.flatten(1) - guess.square()).sum(1).mean().item() / unit
    method = f"denoising score matching, width {width}, {epochs} epochs"
    score = ScoreFunction(trace, least, _most(d, smoothing), method, smoothing, len(x), d)
    return MatchedScores(-guess / smoothing, score)


def _most(d: int, smoothing: float) -> float:
    return d / smoothing**2 if smoothing > 0 else math.inf


def _check(smoothing: float, least: float) -> None:
    if not (math.isfinite(smoothing) and smoothing >= least):
        raise InputError(f"expected a smoothing of {least:g} or more, got {smoothing}; use {SMOOTHING}.")
