"""How much features depend on inputs: distance correlation, HSIC and CKA, each from one Gram matrix a side.

All are scalars over a set of N pairs, symmetric in their arguments, differentiable, unchanged by the order of the
pairs, by z * 10 and by any orthogonal map of x or z. Memory is O(N^2), whatever the number of features; arithmetic is
float64 inside, because distances from a float32 Gram matrix lose near-duplicates.

Biased forms (V-statistics) are training losses: from 128 pairs of thousands of features they are near 1 for
independent data too. Report the unbiased forms, which are 0 on average there and may fall a little below.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from splitveil.core.errors import InputError
from splitveil.lab.accelerator import Accelerator

CHUNK, NARROWEST = 2**18, 512
"""Elements that are held in float64 at one time: few enough for the cache, but never fewer columns than that."""
BANDS = 4
"""Bands of rows of the symmetric product, of which what lies above the diagonal is copied."""
SAME = 1e-13
"""Squared distance, relative to the two squared norms about the mean, below which two rows count as equal."""


def distance_correlation(x: Tensor, z: Tensor) -> Tensor:
    """Squared distance correlation of Szekely, Rizzo and Bakirov (2007, section 2), without outer root; biased.

    ``mean(A * B) / sqrt(mean(A * A) * mean(B * B))`` of double-centred Euclidean distances: the loss of SiftFunnel
    (section 2.3 of our notes) and of NoPeek in its Euclidean form. Where two rows are equal their distance passes no
    gradient (our reading; published code adds 1e-10 under the root, which makes the value depend on z's scale).

    Args:
        x: (N, ...), N at least 2.
        z: (N, ...).

    Returns:
        scalar in [0, 1]; 0 where x or z is constant.

    Raises:
        InputError: different or too few rows.
    """
    _check(x, z, 2)
    return _correlation(_centred(distances(x)), _centred(distances(z))).to(x.device, _dtype(x, z))


def distance_correlation_unbiased(x: Tensor, z: Tensor) -> Tensor:
    """Bias-corrected squared distance correlation of Szekely and Rizzo (2014): U-centred distances.

    About 0 for independent data of any width, at most 1, and possibly negative: print it as it is.

    Args:
        x: (N, ...), N at least 4.
        z: (N, ...).

    Returns:
        scalar, on the scale of the squared distance correlation; 0 where x or z is constant.

    Raises:
        InputError: different or too few rows.
    """
    _check(x, z, 4)
    return _correlation(_u_centred(distances(x)), _u_centred(distances(z))).to(x.device, _dtype(x, z))


def hsic(x: Tensor, z: Tensor) -> Tensor:
    """Hilbert-Schmidt independence criterion, biased: ``tr(K H L H) / (N - 1)^2`` (Gretton et al. 2005).

    Gaussian kernels ``exp(-d^2 / (2 s^2))`` whose width s is the median distance between different rows; the gradient
    passes through s, so that scaling z earns nothing (our reading). Not normalised: compare equal N only.

    x: (N, ...), z: (N, ...), N at least 2 -> scalar, 0 or more.

    Raises:
        InputError: different or too few rows.
    """
    _check(x, z, 2)
    k_x, k_z = (_centred(_gaussian(distances(t))) for t in (x, z))
    return ((k_x * k_z).sum() / (len(x) - 1) ** 2).to(x.device, _dtype(x, z))


def hsic_unbiased(x: Tensor, z: Tensor) -> Tensor:
    """Unbiased HSIC (HSIC_1 of Song et al. 2012), kernels as in :func:`hsic`; 0 on average for independent data.

    The median width looks at the same data, a small bias that the estimator does not know of.

    x: (N, ...), z: (N, ...), N at least 4 -> scalar, possibly negative.

    Raises:
        InputError: different or too few rows.
    """
    _check(x, z, 4)
    # Song's three sums are the inner product of U-centred kernels (Szekely and Rizzo 2014), which rounds better.
    k_x, k_z = (_u_centred(_gaussian(distances(t))) for t in (x, z))
    return ((k_x * k_z).sum() / (len(x) * (len(x) - 3))).to(x.device, _dtype(x, z))


def linear_cka(x: Tensor, z: Tensor) -> Tensor:
    """Linear centred kernel alignment (Kornblith et al. 2019, section 3), biased: near 1 for few rows of many features.

    x: (N, ...), z: (N, ...), N at least 2 -> scalar in [0, 1]: 1 for an orthogonal map and one scale, 0 where x or z is
    constant.

    Raises:
        InputError: different or too few rows.
    """
    _check(x, z, 2)
    return _correlation(_centred(gram(x)), _centred(gram(z))).to(x.device, _dtype(x, z))


def linear_cka_debiased(x: Tensor, z: Tensor) -> Tensor:
    """Linear CKA of the unbiased HSIC (Song et al. 2012): about 0 for independent data of any width.

    x: (N, ...), z: (N, ...), N at least 4 -> scalar, at most 1, possibly negative; 0 where x or z is
    constant.

    Raises:
        InputError: different or too few rows.
    """
    _check(x, z, 4)
    return _correlation(_u_centred(gram(x)), _u_centred(gram(z))).to(x.device, _dtype(x, z))


def gram(x: Tensor) -> Tensor:
    """Inner products of rows about (nearly) their mean, float64. x: (N, ...) -> (N, N); differentiable once."""
    product: Tensor = _Gram.apply(_rows(x))  # type: ignore[no-untyped-call]
    return product


def distances(x: Tensor) -> Tensor:
    """Euclidean distances of rows, float64. x: (N, ...) -> (N, N); differentiable once, no gradient between equals."""
    between: Tensor = _Distances.apply(_rows(x))  # type: ignore[no-untyped-call]
    return between


def _rows(x: Tensor) -> Tensor:
    """(N, ...) -> (N, D), where float64 is: where x is, or on the processor."""
    return x.flatten(1).to(Accelerator.of(x).with_doubles().device)


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _product(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return _applied(grad + grad.T, x)


class _Distances(torch.autograd.Function):
    """In one piece, because autograd would keep five (N, N) matrices where two are needed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        between = _product(x)
        norms = between.diagonal().clone()
        between.mul_(-2).add_(norms).add_(norms[:, None])
        for row, norm in zip(between, norms, strict=True):
            # NaN stays NaN: it is not below.
            row.masked_fill_(row <= SAME * (norms + norm), 0)
        between.sqrt_()
        ctx.save_for_backward(x, between)
        return between

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, between = ctx.saved_tensors
        weights = (grad + grad.T).div_(between).masked_fill_(between == 0, 0).neg_()
        weights.diagonal().sub_(weights.sum(1))
        return _applied(weights, x)


def _product(x: Tensor) -> Tensor:
    """A few columns at a time, so that of float64 only the (N, N) result is ever whole."""
    product = torch.zeros(len(x), len(x), dtype=torch.float64, device=x.device)
    bands = [slice(i, i + -(-len(x) // BANDS)) for i in range(0, len(x), -(-len(x) // BANDS))]
    for columns in x.split(_width(x), dim=1):
        centred = _about_mean(columns)
        for band in bands:
            product[band.start :, band].addmm_(centred[band.start :], centred[band].T)
    for band in bands:
        product[band, band.stop :] = product[band.stop :, band].T
    return product


def _applied(matrix: Tensor, x: Tensor) -> Tensor:
    """Matrix times rows about their mean, itself about its mean. (N, N), (N, D) -> (N, D)."""
    out = torch.empty_like(x)
    for columns, into in zip(x.split(_width(x), dim=1), out.split(_width(x), dim=1), strict=True):
        slope = matrix @ _about_mean(columns)
        into.copy_(slope - slope.mean(0))
    return out


def _width(x: Tensor) -> int:
    return max(NARROWEST, CHUNK // len(x))


def _about_mean(columns: Tensor) -> Tensor:
    """Float64. The mean in the columns' own precision, so that a constant column becomes exactly 0."""
    centred = columns.to(torch.float64, copy=True)
    return centred.sub_(centred.mean(0).to(columns.dtype))


def _gaussian(between: Tensor) -> Tensor:
    """Kernel matrix of distances; each pair stands twice in the median and counts as two."""
    apart = between[between != 0]
    width = apart.median() if len(apart) else between.new_ones(())
    return (-(between / width).square() / 2).exp()


def _centred(a: Tensor) -> Tensor:
    """Double-centred symmetric matrix."""
    rows = a.mean(1)
    return a - (rows[:, None] + (rows - rows.mean()))


def _u_centred(a: Tensor) -> Tensor:
    """U-centred symmetric matrix (Szekely and Rizzo 2014, definition 2); what stands on the diagonal is not used."""
    n = len(a)
    a = a - torch.diag(a.diagonal())
    rows = a.sum(1) / (n - 2)
    a = a - rows[:, None] - rows + rows.sum() / (n - 1)
    return a - torch.diag(a.diagonal())


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of two matrices; 0 where one is all zero."""
    a, b = a.flatten(), b.flatten()
    power = a.dot(a) * b.dot(b)
    return a.dot(b) / power.masked_fill(power == 0, 1).sqrt()


def _dtype(x: Tensor, z: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(x.dtype, z.dtype), torch.float32)


def _check(x: Tensor, z: Tensor, least: int) -> None:
    if x.ndim < 2 or z.ndim < 2 or len(x) != len(z) or len(x) < least:
        raise InputError(
            f"expected x and z as (N, ...) with one N of at least {least}, got {tuple(x.shape)} and "
            f"{tuple(z.shape)}; give pairs of an input and its own features."
        )
