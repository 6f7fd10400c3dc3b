"""Class radius (R_c^2) and effective rank of features: how tightly they gather about their class means.

After arXiv 2506.15412 (Liu and Zhu 2025), which reads a sudden fall of the class radius R_c^2 as the passage from
features of the image to features of the decision. Published is one batch's sum over dimensions of raw activations;
here it is taken over the whole set, per dimension and relative to the total variance, with channels in units of their
own spread, so that neither the number of dimensions nor the scale of z moves it.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.seeds import derive, generator

CHUNK = 2_000_000
"""Elements that are held in float64 at one time."""
CONSTANT = 1e-6
"""Standard deviation of a channel, relative to its mean, up to which it counts as constant."""
LEVEL = 0.95
ROUND_OFF = 1e-13
"""Eigenvalue, relative to the largest, below which it is rounding."""


@dataclass(frozen=True, slots=True)
class Radius:
    """Spread of features about their class means; 0 throughout where z is constant.

    Attributes:
        uncorrected: mean over classes of ``R_c^2 = (1/N_c) sum_i ||z_i - mu_c||^2``, a sum over dimensions.
        corrected: the same with ``N_c / (N_c - 1)``, unbiased for any class size.
        per_dimension: `corrected` over `dimensions`.
        relative: variance within classes over total variance, both unbiased, classes weighted by their size: 0 where
            z is a function of the label, about 1 where the classes do not show in z.
        per_dimension_interval: 95 % bootstrap over the images of each class; (nan, nan) without resamples.
        relative_interval: the same for `relative`.
        by_class: (K,) corrected R_c^2 of each class, a sum over dimensions; NaN where left out.
        counts: (K,) images of each class.
        left_out: classes with too few images, those with none among them.
        total: total variance per dimension of the images counted, unbiased.
        dimensions: numbers in z for one image, constant channels not counted.
        standardised: whether channels are in units of their own spread.
    """

    uncorrected: float
    corrected: float
    per_dimension: float
    relative: float
    per_dimension_interval: tuple[float, float]
    relative_interval: tuple[float, float]
    by_class: Tensor
    counts: Tensor
    left_out: int
    total: float
    dimensions: int
    standardised: bool


def class_radius(
    z: Tensor | Sequence[Tensor],
    labels: Tensor,
    classes: int,
    *,
    standardise: bool = True,
    least: int = 2,
    resamples: int = 1000,
    seed: int = 0,
) -> Radius:
    """Class radius R_c^2 (arXiv 2506.15412, theory section) of a whole set, in passes over a few images at a time.

    Our reading: channels are axis 1, or the last axis of tokens (N, L, D), standardised with the statistics of all
    images and positions; constant channels do not count, so that dead channels are no sign of tightness; the bootstrap
    resamples distances to the class means of the whole set, right to first order in 1/N_c. Read it from 20 images a
    class on. Beside z it holds K * dimensions numbers.

    Args:
        z: (N, *cut), or its parts in order, as batches come.
        labels: (N,) integers, true or predicted; below 0 where unknown, which leaves the image out.
        classes: K.
        standardise: channels in units of their own spread; raw depends on the scale of z.
        least: images that a class needs, 2 or more.
        resamples: of the bootstrap; 0 for none.
        seed: of the bootstrap.

    Raises:
        InputError: shapes or labels that do not fit, or no class with enough images.
    """
    parts = [z] if isinstance(z, Tensor) else list(z)
    counts, kept, y = _counted(parts, labels.cpu(), classes, least)
    scale = _scale(parts, y, standardise)
    sizes, n, width = counts[kept].double(), int(counts[kept].sum()), math.prod(parts[0].shape[1:])

    sums = torch.zeros(len(sizes), width, dtype=torch.float64)
    for block, of in _blocks(parts, y):
        sums.index_add_(0, of, (block * scale).flatten(1))
    centres, centre, squares = sums / sizes[:, None], sums.sum(0) / n, []
    for block, of in _blocks(parts, y):
        rows = (block * scale).flatten(1)
        squares.append(torch.stack([(rows - centres[of]).square().sum(1), (rows - centre).square().sum(1)]))
    within, around = torch.cat(squares, 1)

    dimensions = int((scale > 0).sum()) * (width // len(scale))
    plain = torch.zeros_like(sizes).index_add_(0, y[y >= 0], within) / sizes
    corrected, total = plain * sizes / (sizes - 1), float(around.sum()) / (n - 1)
    by_class = torch.full((classes,), torch.nan, dtype=torch.float64)
    by_class[kept] = corrected
    means, shares = _resampled(within, around, y[y >= 0], sizes, resamples, seed)
    return Radius(
        uncorrected=float(plain.mean()),
        corrected=float(corrected.mean()),
        per_dimension=float(corrected.mean()) / max(1, dimensions),
        relative=float((corrected * sizes).sum()) / n / total if total else 0.0,
        per_dimension_interval=_interval(means / max(1, dimensions)),
        relative_interval=_interval(shares),
        by_class=by_class,
        counts=counts,
        left_out=int((~kept).sum()),
        total=total / max(1, dimensions),
        dimensions=dimensions,
        standardised=standardise,
    )


def cluster_radius(z: Tensor, k: int, seed: int = 0, *, standardise: bool = True) -> Radius:
    """:func:`class_radius` about k-means clusters, for tasks without classes; no paper gives a rule, our reading.

    k-means lowers `relative` also where there are no clusters, the more the fewer dimensions vary: compare cuts at the
    same k and N, or with the value of shuffled columns, never with a radius about true classes.

    Args:
        z: (N, *cut); held once more in float32.
        k: clusters, 1 to N / 2.
        seed: of the starts, four of them, and of the bootstrap.
        standardise: as there.

    Raises:
        InputError: k out of range, or bad features.
    """
    if z.ndim < 2 or not 1 <= k <= len(z) // 2:
        raise InputError(
            f"expected (N, *cut) and from 1 to N / 2 clusters, got {tuple(z.shape)} and {k}; give more images."
        )
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    everyone = torch.zeros(len(z), dtype=torch.long)
    scale = _scale([z], everyone, standardise)
    rows = torch.cat([(block * scale).flatten(1).float() for block, _ in _blocks([z], everyone)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than k: empty clusters are left out
        means = KMeans(k, n_init=4, random_state=derive(seed, "clusters") % 2**32).fit(rows.cpu().numpy())
    return class_radius(z, torch.from_numpy(means.labels_).long(), k, standardise=standardise, seed=seed)


def effective_rank(z: Tensor) -> float:
    """Effective rank (Roy and Vetterli 2007): exp of the entropy of z's singular values, about the mean (our reading).

    Between 0 (constant z) and min(N - 1, dimensions): with few images it is the images that are counted, so compare
    equal N. Costs min(N, dimensions)^3. z: (N, *cut).
    """
    rows = z.flatten(1).double()
    rows = rows - rows.mean(0)
    power = torch.linalg.eigvalsh(rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows).clamp_min(0)
    # Rounding leaves eigenvalues of 1e-16, whose roots, thousands of them, would count as rank.
    power = power.masked_fill(power <= ROUND_OFF * power.amax(), 0)
    return float(spectral_rank(power.sqrt()))


def spectral_rank(values: Tensor) -> Tensor:
    """Exp of the entropy of singular values as shares of their sum. values: (..., k), 0 or more -> (...)."""
    sums = values.sum(-1, keepdim=True)
    shares = values / sums.masked_fill(sums == 0, 1)
    entropy: Tensor = -torch.xlogy(shares, shares).sum(-1)
    return entropy.exp() * (sums.squeeze(-1) != 0)


def _counted(parts: list[Tensor], labels: Tensor, classes: int, least: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images of each class, (K,); which classes are kept, (K,); place of each image's class among these or -1, (N,)."""
    shapes, n = {tuple(part.shape[1:]) for part in parts}, sum(len(part) for part in parts)
    if len(shapes) != 1 or () in shapes or labels.shape != (n,) or labels.is_floating_point():
        raise InputError(
            f"expected z as (N, *cut) and N integer labels, got {n} of shape {sorted(shapes)} and labels "
            f"{tuple(labels.shape)} of {labels.dtype}; give one label for each image."
        )
    if least < 2 or bool((labels >= classes).any()):
        raise InputError(
            f"expected labels below {classes} and least of 2 or more, got up to {int(labels.max())} and {least}; "
            "give the number of classes that the labels are from."
        )
    counts = labels[labels >= 0].bincount(minlength=classes)
    kept = counts >= least
    if not kept.any():
        raise InputError(f"expected a class of at least {least} images, got none among {n}; give more images.")
    place = torch.where(kept, kept.cumsum(0) - 1, -1)
    return counts, kept, torch.where(labels >= 0, place[labels.clamp_min(0)], -1)


def _blocks(parts: list[Tensor], y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Images whose `y` is 0 or more, a few at a time: (n, channels, positions) float64, with their `y`."""
    pieces = [rows for part in parts for rows in part.split(max(1, CHUNK // math.prod(part.shape[1:])))]
    for rows, of in zip(pieces, y.split([len(rows) for rows in pieces]), strict=True):
        block = rows[of.to(rows.device) >= 0].to("cpu", torch.float64)
        block = block.transpose(1, 2) if block.ndim == 3 else block
        yield block.reshape(len(block), block.shape[1], math.prod(block.shape[2:])), of[of >= 0]


def _scale(parts: list[Tensor], y: Tensor, standardise: bool) -> Tensor:
    """What each channel is multiplied by, (channels, 1): 1 over its spread, or 1; 0 for constant channels."""
    mean, squares, count = torch.zeros(1), torch.zeros(1), 0
    for block, _ in _blocks(parts, y):
        if not len(block):
            continue
        # Chan, Golub and LeVeque 1983: one pass, and no difference of large sums.
        more, variance = block.mean((0, 2)), block.var((0, 2), correction=0)
        fresh = len(block) * block.shape[2]
        apart, count = more - mean, count + fresh
        squares = squares + variance * fresh + apart.square() * (fresh * (count - fresh) / count)
        mean = mean + apart * (fresh / count)
    spread = (squares / count).sqrt()
    vary = ~(spread <= CONSTANT * mean.abs())
    return (torch.where(vary, 1 / spread.masked_fill(~vary, 1), 0) if standardise else vary.double())[:, None]


def _resampled(
    within: Tensor, around: Tensor, y: Tensor, sizes: Tensor, resamples: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Corrected R_c^2, mean over classes, and its share of the total in samples drawn again, (resamples,) each."""
    n, order = len(y), y.argsort(stable=True)
    within, around, y = within[order], around[order], y[order]
    first, size = (sizes.cumsum(0) - sizes)[y], sizes[y]
    draws, means, shares = generator(seed, "radius", n), [], []
    at_once = max(1, CHUNK // n)
    for done in range(0, resamples, at_once):
        drawn = torch.rand(min(at_once, resamples - done), n, dtype=torch.float64, generator=draws)
        index = (first + drawn * size).long().clamp_max(n - 1)
        radii = torch.zeros(len(index), len(sizes), dtype=torch.float64).index_add_(1, y, within[index]) / (sizes - 1)
        totals = around[index].sum(1) / (n - 1)
        means.append(radii.mean(1))
        shares.append((radii * sizes).sum(1) / n / totals.masked_fill(totals == 0, 1))
    return (torch.cat(means), torch.cat(shares)) if means else (torch.empty(0), torch.empty(0))


def _interval(values: Tensor) -> tuple[float, float]:
    if not len(values):
        return math.nan, math.nan
    low, high = values.quantile(values.new_tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return float(low), float(high)
