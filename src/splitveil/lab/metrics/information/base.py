"""What an information estimate says, and how samples are checked, split and scaled before one."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.seeds import generator

LEAST = 64
"""Samples below which no estimate is made."""
VALID = 0.2
"""Share of the training half that picks the epoch."""
FLAT = 1e-6
"""A feature whose spread is less than this share of its size is constant."""
NEAR_CAP = 0.9
"""From this share of the cap on, an estimate says more about the estimator than about the features."""
Z95 = 1.96


@dataclass(frozen=True, slots=True)
class MIEstimate:
    """Mutual information as one estimator sees it.

    Attributes:
        name: of the estimator.
        nats: the estimate; natural logarithms. A little below zero is noise about zero.
        interval: 95 %, over the samples it was evaluated on only: neither the critic's training nor its bias is in it.
        cap: nats that this estimator can never exceed on so many samples; None where there is no such number.
        samples: it was evaluated on, none of which it was trained or tuned on.
        note: what must be known to read the number.
    """

    name: str
    nats: float
    interval: tuple[float, float] | None
    cap: float | None
    samples: int
    note: str

    @property
    def saturated(self) -> bool:
        """Whether the estimate is so near its cap that the truth may be anything above it."""
        return self.cap is not None and self.nats > NEAR_CAP * self.cap


@dataclass(frozen=True, slots=True)
class CalibratedEstimate:
    """One row of a calibration. pair: ``x;z``, ``x;x``, ``x;label`` or ``x;shuffled z``."""

    pair: str
    estimate: MIEstimate


@dataclass(frozen=True, slots=True)
class Validity:
    """Where an estimator was held against correlated Gaussians of known information (the tests do it again).

    Attributes:
        dims: of x and of z, each.
        nats: from about 0.5 up to so many; CLUB from 2.
        samples: given to the estimator, its own training half among them.
        error: largest absolute error in nats; for CLUB relative, and of CLUB's own closed form.
    """

    dims: int
    nats: float
    samples: int
    error: float


class Estimator(Protocol):
    """x: (N, ...) and z: (N, ...), row by row a pair -> nats."""

    def __call__(self, x: Tensor, z: Tensor, *, seed: int = 0) -> MIEstimate:
        """Estimate I(x;z)."""
        ...


@dataclass(frozen=True, slots=True)
class SampleSplit:
    """Positions of the samples that train a critic, pick its epoch, and are held out for the number itself."""

    train: Tensor
    valid: Tensor
    held: Tensor


def split_samples(count: int, seed: int) -> SampleSplit:
    """Half for training, `VALID` of it for picking the epoch, and half held out; the same for the same seed."""
    order = torch.randperm(count, generator=generator(seed, "halves"))
    half = count // 2
    cut = half - max(1, round(VALID * half))
    return SampleSplit(order[:cut], order[cut:half], order[half:])


def paired(x: Tensor, z: Tensor, least: int = LEAST) -> tuple[Tensor, Tensor]:
    """Both flattened to (N, D), in floating point.

    Raises:
        InputError: numbers of samples differ, too few samples, no features, or values that are not finite.
    """
    if len(x) != len(z):
        raise InputError(f"expected as many samples of x as of z, got {len(x)} and {len(z)}; pass them pair by pair.")
    if len(x) < least:
        raise InputError(f"expected at least {least} samples, got {len(x)}; pass more.")
    return flattened(x, "x"), flattened(z, "z")


def flattened(x: Tensor, what: str) -> Tensor:
    """(N, ...) -> (N, D) in floating point.

    Raises:
        InputError: no features, or values that are not finite.
    """
    if x.numel() == 0:
        raise InputError(f"expected {what} of shape (N, ...), got {tuple(x.shape)}; pass at least one feature.")
    flat = x.detach().reshape(len(x), -1)
    flat = flat if flat.is_floating_point() else flat.float()
    if not bool(flat.isfinite().all()):
        raise InputError(f"expected finite {what}, got NaN or infinity; leave those samples out or mend the edge.")
    return flat


def standardised(x: Tensor, reference: Tensor) -> Tensor:
    """Each feature with mean 0 and spread 1 over the rows of `reference`; constant ones become 0. (N, D) -> (N, D).

    An affine map of a feature moves no information, so that scaling z by 10 moves no estimate.
    """
    wide = reference.double()
    mean, spread = wide.mean(0), wide.std(0, correction=0)
    flat = spread <= FLAT * wide.abs().amax(0)
    return torch.where(flat, 0.0, (x.double() - mean) / spread.where(~flat, 1.0)).to(x.dtype)


def mean_interval(values: Tensor) -> tuple[float, float]:
    """95 % of the mean of independent values by the normal approximation. values: (N,)."""
    mean, error = values.mean().item(), values.std().item() / len(values) ** 0.5
    return mean - Z95 * error, mean + Z95 * error
