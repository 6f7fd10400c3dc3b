"""The edge as a linear map about each image: singular values of its Jacobian dz/dx, its effective rank, its size.

Directions of x with small singular values are those that the cut hides. Scaling z scales every singular value, so that
only their shape, the effective rank, compares cuts; the squared norm needs the noise's or the features' scale beside
it. `edge` is any function (N, C, H, W) -> (N, *cut) that treats its images one by one (evaluation mode: BatchNorm in
training mode would mix them), before any codec: rounding has the derivative 0, which would look like privacy. Probes
are the same for every image, so that neither batch nor order moves a value.
"""

import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from splitveil.core.errors import InputError
from splitveil.lab.metrics.geometry import spectral_rank
from splitveil.lab.seeds import generator

Edge = Callable[[Tensor], Tensor]

AT_ONCE = 128
"""Copies of an image that are pushed through the edge together."""
LARGEST = 2**26
"""Elements of a Jacobian that is held whole, in float64: half a gigabyte."""
OVERSAMPLING, POWERS = 8, 3
"""Halko, Martinsson and Tropp 2011, section 4.5: more directions than asked for, and power iterations."""


def spectrum(edge: Edge, x: Tensor, *, probes: int | None = None, seed: int = 0) -> Tensor:
    """Singular values of dz/dx of each image, largest first.

    Without `probes` exactly, by as many derivatives as the smaller side has numbers. With them the leading ones by
    randomised subspace iteration (Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1), never too large; where the
    spectrum is flat the last of them are some per cent too small (6 % in an untrained net of three convolutions).

    Args:
        edge: differentiable, (N, C, H, W) -> (N, *cut).
        x: (N, C, H, W) in [0, 1].
        probes: singular values wanted; all where the Jacobian has no more.
        seed: of the first directions.

    Returns:
        (N, k) float64, not negative.

    Raises:
        InputError: an edge without a derivative, or a Jacobian too large to be exact.
    """
    outputs, inputs = _outputs(edge, x), x[0].numel()
    count = min(inputs, outputs)
    if probes is not None and probes < 1:
        raise InputError(f"expected 1 or more probes, got {probes}; give the number of singular values wanted.")
    if probes is None or probes + OVERSAMPLING >= count:
        if inputs * outputs > LARGEST:
            raise InputError(
                f"expected a Jacobian of at most {LARGEST:,} elements, got {outputs} x {inputs}; give probes=32."
            )
        whole = (torch.cat(list(_lines(edge, image, outputs))) for image in x)
        return torch.stack([torch.linalg.svdvals(jacobian)[:probes] for jacobian in whole])
    draws = torch.randn(probes + OVERSAMPLING, inputs, generator=generator(seed, "jacobian", inputs))
    return torch.stack([_leading(edge, image, draws)[:probes] for image in x])


def rank(edge: Edge, x: Tensor, *, probes: int | None = None, seed: int = 0) -> Tensor:
    """Effective rank (Roy and Vetterli 2007) of dz/dx of each image, (N,) float64; arguments as in :func:`spectrum`.

    Unmoved by the scale of z. With `probes` it is that of the leading singular values alone: at most `probes`, and to
    be compared between cuts at equal `probes` only.
    """
    return spectral_rank(spectrum(edge, x, probes=probes, seed=seed))


def _leading(edge: Edge, image: Tensor, draws: Tensor) -> Tensor:
    """Randomised subspace iteration, a basis made orthonormal after every product. draws: (l, inputs) -> (l,)."""
    reached = _pushed(edge, image, draws)
    for _ in range(POWERS):
        back = _pulled(edge, image, _orthonormal(reached))
        reached = _pushed(edge, image, _orthonormal(back))
    values: Tensor = torch.linalg.svdvals(_pulled(edge, image, _orthonormal(reached)))
    return values


def _orthonormal(rows: Tensor) -> Tensor:
    """Orthonormal rows of the same span. (l, n) -> (l, n)."""
    basis: Tensor = torch.linalg.qr(rows.T).Q
    return basis.T


def _lines(edge: Edge, image: Tensor, outputs: int) -> Iterator[Tensor]:
    """The Jacobian's rows, or its columns where these are fewer, some at a time, float64."""
    inputs = image.numel()
    product, count = (_pulled, outputs) if outputs <= inputs else (_pushed, inputs)
    for first in range(0, count, AT_ONCE):
        directions = torch.zeros(min(AT_ONCE, count - first), count)
        directions.diagonal(first).fill_(1)
        yield product(edge, image, directions)


def _pulled(edge: Edge, image: Tensor, directions: Tensor) -> Tensor:
    """``J^T v`` for each row v. directions: (l, outputs) -> (l, inputs) float64."""
    found = []
    for part in directions.split(AT_ONCE):
        x = _copies(image, len(part)).requires_grad_(True)
        with torch.enable_grad():
            z = edge(x)
        (slope,) = torch.autograd.grad(z, x, part.to(z).reshape(z.shape))
        found.append(slope.flatten(1).cpu().double())
    return torch.cat(found)


def _pushed(edge: Edge, image: Tensor, directions: Tensor) -> Tensor:
    """``J v`` for each row v. directions: (l, inputs) -> (l, outputs) float64."""
    found = []
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), warnings.catch_warnings():
        # Fused attention has no forward derivative; torch's own first use of forward derivatives warns of itself.
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.script", category=DeprecationWarning)
        for part in directions.split(AT_ONCE):
            x = _copies(image, len(part))
            slope: Tensor = torch.func.jvp(edge, (x,), (part.to(x).reshape(x.shape),))[1]
            found.append(slope.flatten(1).cpu().double())
    return torch.cat(found)


def _copies(image: Tensor, count: int) -> Tensor:
    return image.detach().expand(count, *image.shape).clone(memory_format=torch.contiguous_format)


def _outputs(edge: Edge, x: Tensor) -> int:
    if x.ndim < 2 or not len(x):
        raise InputError(f"expected images as (N, C, H, W), got {tuple(x.shape)}; give at least one.")
    with torch.enable_grad():
        z = edge(x[:1].detach().clone().requires_grad_(True))
    if not z.requires_grad:
        raise InputError("expected an edge with a derivative, got features that are detached; give it without no_grad.")
    return z[0].numel()
