"""Fisher information that noisy features carry about their input: its trace, and the Jacobian rows it is made of.

For ``z = f(x) + sigma * n``, n standard normal: ``I(x) = J(x)^T diag(1 / sigma^2) J(x)`` with ``J = df/dx``.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from warnings import catch_warnings

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.seeds import generator

ROWS = 256
"""Inputs in one pass: pairs of an image and a direction."""

Encoder = Callable[[Tensor], Tensor]
"""The deterministic part of what leaves the device: (N, ...) -> (N, *cut), samples independent."""


@dataclass(frozen=True, slots=True)
class FisherTrace:
    """Tr I(x) of single inputs. values: (N,), float64; errors: (N,), standard errors of the probing, 0 where exact."""

    values: Tensor
    errors: Tensor
    d: int

    @property
    def dfil(self) -> Tensor:
        """Tr I(x) / d: (N,), in 1 / (squared pixel range)."""
        return self.values / self.d

    @property
    def mean(self) -> float:
        """E[Tr I]."""
        return self.values.mean().item()

    @property
    def standard_error(self) -> float:
        """Of the mean, from images and probes together."""
        if len(self.values) < 2:
            return self.errors.mean().item()
        return self.values.std().item() / math.sqrt(len(self.values))


def fisher_trace(
    f: Encoder, x: Tensor, sigma: float | Tensor, *, probes: int | None = None, seed: int = 0
) -> FisherTrace:
    """Tr I(x) of every input: the squared Frobenius norm of the Jacobian in units of the noise.

    Args:
        f: the deterministic part, clipping included.
        x: (N, ...).
        sigma: standard deviation of the noise, one number or a tensor that broadcasts to (*cut).
        probes: None for the exact value, at min(d, features) passes; else random signs (Hutchinson), at least 2.
        seed: of the probes.

    Raises:
        InputError: noise of another kind, or none on some feature; a single probe.
    """
    whitened, features = _whitened(f, x, sigma)
    d, total = x[0].numel(), torch.zeros(len(x), dtype=torch.float64)
    if probes is None and d <= features:
        # Some operations, fused attention for one, have no forward mode; the rows below give the same number.
        with suppress(NotImplementedError):
            return FisherTrace(_forward(whitened, x), torch.zeros_like(total), d)
    squares = torch.zeros_like(total)
    for images, rows in jacobian_rows(f, x, sigma, probes=probes, seed=seed):
        norms = rows.square().sum(1)
        total.index_add_(0, images, norms)
        squares.index_add_(0, images, norms.square())
    if probes is None:
        return FisherTrace(total, torch.zeros_like(total), d)
    mean = total / probes
    variance = (squares / probes - mean.square()).clamp_min(0) * probes / (probes - 1)
    return FisherTrace(mean, (variance / probes).sqrt(), d)


def jacobian_rows(
    f: Encoder, x: Tensor, sigma: float | Tensor, *, probes: int | None = None, seed: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """v^T diag(1 / sigma) J for every feature's unit vector v, or for `probes` vectors of random signs an image.

    Yields:
        index of the image: (R,) and the rows: (R, d), float64 on the CPU.

    Raises:
        InputError: as `fisher_trace`.
    """
    whitened, features = _whitened(f, x, sigma)
    if probes is not None and probes < 2:
        raise InputError(f"expected 2 probes or more, got {probes}; use 16, or None for the exact value.")
    signs = generator(seed, "probes")
    for images, inputs, directions in _pairs(x, probes or features):
        if probes is None:
            v = _unit_vectors(directions, features, x)
        else:
            v = (2.0 * torch.randint(2, (len(images), features), generator=signs) - 1).to(x)
        with torch.enable_grad():
            inputs = inputs.detach().requires_grad_()
            z = whitened(inputs)
            # A constant edge has no graph to walk back.
            (row,) = torch.autograd.grad(z, inputs, v) if z.requires_grad else (torch.zeros_like(inputs),)
        yield images, row.flatten(1).cpu().double()


def cut_shape(f: Encoder, x: Tensor) -> tuple[int, ...]:
    """Shape of one sample's features. x: (N, ...), the first is enough."""
    with torch.no_grad():
        return tuple(f(x[:1]).shape[1:])


def noise_scale(sigma: float | Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard deviation of every feature's noise: (*cut), float64.

    Raises:
        InputError: a size that depends on x, a shape that does not fit, a negative or infinite value.
    """
    if callable(sigma):
        raise InputError(
            "expected noise of one size for all inputs, got a function; dFIL here leaves out the information in the "
            "size of noise that depends on x, so give a number or a tensor of one sample's shape."
        )
    scale = torch.as_tensor(sigma.cpu() if isinstance(sigma, Tensor) else sigma, dtype=torch.float64).detach()
    if scale.ndim > len(shape) or any(a not in (1, b) for a, b in zip(scale.shape[::-1], shape[::-1], strict=False)):
        raise InputError(
            f"expected sigma of one sample's shape {shape}, got {tuple(scale.shape)}; noise that differs between "
            "samples is not covered, so give a number or one tensor for all."
        )
    if not bool((scale.isfinite() & (scale >= 0)).all()):
        raise InputError("expected a finite sigma of 0 or more, got another; give standard deviations.")
    return scale.expand(shape)


def _whitened(f: Encoder, x: Tensor, sigma: float | Tensor) -> tuple[Encoder, int]:
    """``f(x) / sigma``, flattened, and its number of features."""
    scale = noise_scale(sigma, cut_shape(f, x))
    if bool((scale == 0).any()):
        raise InputError("expected noise on every feature, got sigma = 0; without noise there is no dFIL.")
    unit = scale.reciprocal().to(x)
    return lambda inputs: (f(inputs) * unit).flatten(1), scale.numel()


def _forward(whitened: Encoder, x: Tensor) -> Tensor:
    """Squared norms of the Jacobians, (N,), from their columns."""
    total, d = torch.zeros(len(x), dtype=torch.float64), x[0].numel()
    for images, inputs, directions in _pairs(x, d):
        tangents = _unit_vectors(directions, d, x).reshape(inputs.shape)
        with catch_warnings(action="ignore", category=DeprecationWarning):  # torch warns about its own calls
            moved: Tensor = torch.func.jvp(whitened, (inputs,), (tangents,))[1]
        total.index_add_(0, images, moved.detach().cpu().double().square().sum(1))
    return total


def _pairs(x: Tensor, directions: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Every image with every direction, `ROWS` pairs at a time: (R,), (R, ...), (R,)."""
    for pair in torch.arange(len(x) * directions).split(ROWS):
        images = pair // directions
        yield images, x[images.to(x.device)], pair % directions


def _unit_vectors(index: Tensor, size: int, like: Tensor) -> Tensor:
    """(R,) -> (R, size)."""
    return torch.nn.functional.one_hot(index, size).to(like)
