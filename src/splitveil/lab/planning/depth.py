"""What every cut offers before anything defends it: cheap numbers over depth, from one forward pass."""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.core.progress import task
from splitveil.core.records import Cut
from splitveil.core.records.plan import CutCurve, Figure
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.attacks.base import frozen
from splitveil.lab.auditing.features import memory_budget
from splitveil.lab.auditing.summary import student
from splitveil.lab.cut import Traced
from splitveil.lab.data import Dataset, Images
from splitveil.lab.images import as_floats
from splitveil.lab.metrics.clusters import standardised, within_clusters
from splitveil.lab.metrics.geometry import class_radius, spectral_rank
from splitveil.lab.metrics.information.entropy import coded_bits
from splitveil.lab.metrics.zone import conditional_entropy_bound, crossing_bound
from splitveil.lab.planning.ridge import linear_error
from splitveil.lab.seeds import generator

BATCH = 250
LEAST = 100
RESAMPLES = 500
PARTS = 5
"""Of the jackknife of the rank."""
RANKED = 1000
"""Images that the rank is taken from."""
CODED = 200
"""Images that are coded for H(x)."""
BITS = 8


def curves(
    traced: Traced, data: Dataset, *, n: int = 2000, seed: int = 0, cuts: Sequence[str] | None = None
) -> list[CutCurve]:
    """Cheap numbers at every cut, shallowest first; the evaluator measures, no adversary.

    One forward pass over `n` test images serves all cuts; where the features of all of them do not fit in memory they
    lie in temporary files, and where those of one do not, fewer images are taken: `source` says how many.
    Every number is measured on the undefended features:

    * ``rc2``: class radius R_c^2 per dimension (arXiv 2506.15412), in channel variances, about true labels; whole set,
      channels standardised, class sizes corrected, 95 % bootstrap. ``rc2_predicted``: about the model's own answers.
    * ``rc2_relative``: variance within classes over all variance between images. ``rc2`` is in channel variances, which
      count what differs from position to position in every image alike; this is not (our reading; read it first where a
      net adds positions, or pads maps of a few pixels).
    * ``within``: variance within k-means clusters over all variance, K clusters for K classes, no labels; wide features
      in a random projection. ``within_shuffled``: the same without clusters, of the same spectrum.
    * ``rank``: effective rank (Roy and Vetterli 2007) of the standardised features' covariance over at most 1,000
      images, in directions; grouped jackknife for its interval. Our cheap stand-in for the Jacobian's: it counts what
      moves from image to image, at most images - 1, so compare equal n.
    * ``h_x_z``: bits that z leaves open, ``H(x) - h(z) - kappa`` (same paper) for 8-bit features, at least 0.
      ``h_z``: what it subtracts, at most this many bits cross. H(x) is the coded size of the images, which is too
      large: an estimate that orders cuts, no certificate.
    * ``elements``, ``payload``: numbers and raw fp32 bytes of one sample.
    * ``linear_mse``: held-out error of a linear decoder, per element; see `splitveil.lab.planning.ridge`.

    Args:
        traced: a traced, trained model.
        data: images are drawn from its test part.
        n: images, at most the test part.
        seed: of every draw.
        cuts: names; None for every legal cut.

    Raises:
        CutError: no legal cut there.
        InputError: fewer than 100 images, or no cut.
    """
    chosen = _chosen(traced, cuts)
    n = min(n, len(data.test), memory_budget() // max((c.bytes_fp32 for c in chosen), default=1))
    if n < LEAST or not chosen:
        raise InputError(
            f"expected at least {LEAST} test images, features that fit in memory and one cut, got {n} images and "
            f"{len(chosen)} cuts; give more of what is missing."
        )
    index = torch.randperm(len(data.test), generator=generator(seed, "curves"))[:n]
    images = data.test.take(index.numpy())
    device = Accelerator.chosen().with_doubles().device
    x, labels = as_floats(torch.from_numpy(images.x)).to(device), torch.from_numpy(images.y)
    entropy_x = coded_bits(x[:CODED], BITS) * math.log(2)
    with tempfile.TemporaryDirectory(prefix="splitveil-curves-") as folder:
        answers, features = _pass(traced, chosen, images, Path(folder))
        found = []
        with task("curves over depth", len(chosen)) as show:
            for k, (cut, z) in enumerate(zip(chosen, features, strict=True)):
                show(k, cut.name)
                numbers = _numbers(z.to(device), x, labels, answers.argmax(1), len(data.classes), entropy_x, seed)
                counted = {"elements": z[0].numel(), "payload": cut.bytes_fp32}
                numbers |= {name: Figure(value=v, measured=True, source="counted") for name, v in counted.items()}
                found.append(CutCurve(cut=cut, numbers=numbers))
        del features
    return found


def _chosen(traced: Traced, names: Sequence[str] | None) -> list[Cut]:
    """The cuts named, each once, shallowest first."""
    legal = traced.cuts()
    if names is None:
        return legal
    return sorted({(cut := traced.split(name).cut).name: cut for name in names}.values(), key=lambda c: c.index)


def _pass(traced: Traced, chosen: Sequence[Cut], images: Images, folder: Path) -> tuple[Tensor, list[Tensor]]:
    """Logits (N, K) and features (N, *cut) of every cut, in the machine's memory."""
    n, tap, where = len(images), frozen(traced.tap([c.name for c in chosen])), Accelerator.chosen()
    small = n * sum(c.bytes_fp32 for c in chosen) <= memory_budget()

    def place(k: int, cut: Cut) -> Tensor:
        shape = (n, *cut.shape)
        if small:
            return torch.empty(shape)
        return torch.from_numpy(np.memmap(folder / f"{k}.f32", np.float32, "w+", shape=shape))

    features, answers = [place(k, c) for k, c in enumerate(chosen)], []
    with task("features of all cuts", n) as show, where.used(tap), torch.no_grad():
        for first in range(0, n, BATCH):
            x = as_floats(torch.from_numpy(images.x[first : first + BATCH])).to(where.device)
            logits, zs = tap(x.contiguous(memory_format=torch.channels_last))
            answers.append(logits.cpu())
            for kept, z in zip(features, zs, strict=True):
                kept[first : first + len(x)] = z.cpu()
            show(first + len(x))
    return torch.cat(answers), features


def _numbers(
    z: Tensor, x: Tensor, labels: Tensor, predicted: Tensor, classes: int, entropy_x: float, seed: int
) -> dict[str, Figure]:
    """Every number of one cut that depends on its features."""
    n, k = len(z), min(classes, len(z) // 4)
    radius = class_radius(z, labels, classes, resamples=RESAMPLES, seed=seed)
    own = class_radius(z, predicted, classes, resamples=RESAMPLES, seed=seed)
    rows = standardised(z)
    clusters = within_clusters(rows, k, standardise=False, resamples=RESAMPLES, seed=seed)
    gram = rows @ rows.T
    linear = linear_error(z, rows, gram, x, seed=seed)
    shares = labels.bincount(minlength=classes).double() / n
    nats = sum(crossing_bound(z, radius, float(torch.special.entr(shares).sum()), bits=BITS))
    left = conditional_entropy_bound(entropy_x, nats, 0.0)
    projection = f" in {clusters.directions} directions"
    effective, around = _rank(gram[:RANKED, :RANKED])
    return {
        "rc2": _figure(
            radius.per_dimension, f"R_c^2/D, {n} images, true labels", _finite(radius.per_dimension_interval)
        ),
        "rc2_relative": _figure(
            radius.relative, f"R_c^2 over all variance, {n} images, true labels", _finite(radius.relative_interval)
        ),
        "rc2_predicted": _figure(
            own.per_dimension, f"R_c^2/D, {n} images, the model's own answers", _finite(own.per_dimension_interval)
        ),
        "within": _figure(clusters.within, f"{k} k-means clusters{projection}, {n} images", clusters.interval),
        "within_shuffled": _figure(clusters.shuffled, f"{k} k-means clusters{projection}, components shuffled"),
        "rank": _figure(effective, f"effective rank of the covariance, {min(n, RANKED)} images", around),
        "h_x_z": _figure(left / math.log(2), "bits; H(x) from coded images is too large: no certificate"),
        "h_z": _figure(max(nats, 0.0) / math.log(2), f"bits; bound from above on what crosses at {BITS} bits"),
        "linear_mse": _figure(linear.mse, linear.words, linear.interval),
    }


def _figure(value: float, source: str, interval: tuple[float, float] | None = None) -> Figure:
    return Figure(value=value, measured=True, interval=interval, source=source)


def _finite(interval: tuple[float, float]) -> tuple[float, float] | None:
    return interval if all(map(math.isfinite, interval)) else None


def _rank(gram: Tensor) -> tuple[float, tuple[float, float]]:
    """Effective rank from products of rows (n, n), with a 95 % interval from leaving out a fifth of the images in turn.

    A part's rank is lower because it has fewer images; the jackknife reads only how the parts differ.
    """
    n = len(gram)
    without = [torch.tensor([i for i in range(n) if i % PARTS != part]) for part in range(PARTS)]
    ranks = torch.tensor([_covariance_rank(gram[keep][:, keep]) for keep in without])
    spread = float(((PARTS - 1) / PARTS * (ranks - ranks.mean()).square().sum()).sqrt())
    value, half = _covariance_rank(gram), student(PARTS - 1) * spread
    return value, (max(0.0, value - half), value + half)


def _covariance_rank(gram: Tensor) -> float:
    centred = gram.double()
    centred = centred - centred.mean(0) - centred.mean(1, keepdim=True) + centred.mean()
    # The covariance and the centred products of rows have the same eigenvalues, but for zeros.
    return float(spectral_rank(torch.linalg.eigvalsh(centred).clamp_min(0)))
