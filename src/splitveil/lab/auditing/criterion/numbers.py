"""The cheap numbers, a function a family; `FAMILIES` is the table.

Each gives the same names in the same order at every cut. Every number has the same estimator's answer where the truth
is known, and says in its note what it is not.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from splitveil.core.records import Number
from splitveil.lab.auditing.criterion.material import Material
from splitveil.lab.metrics.bounds.dfil import certificate
from splitveil.lab.metrics.bounds.fisher import fisher_trace
from splitveil.lab.metrics.bounds.prior import gaussian_score
from splitveil.lab.metrics.dependence import distance_correlation_unbiased, hsic_unbiased, linear_cka_debiased
from splitveil.lab.metrics.geometry import class_radius, cluster_radius, effective_rank
from splitveil.lab.metrics.information import ESTIMATORS
from splitveil.lab.metrics.information.base import MIEstimate
from splitveil.lab.metrics.information.calibration import calibrated
from splitveil.lab.metrics.information.entropy import coded_bits, effective_volume, quantised_entropy
from splitveil.lab.metrics.jacobian import rank
from splitveil.lab.metrics.zone import crossing_bound
from splitveil.lab.seeds import digest

PAIRS = 1024
"""Samples of the dependence measures and of the effective rank, whose cost grows with their square and cube."""
CODED = 200
"""Samples coded one by one."""
PROBED, PROBES = 16, 8
"""Images and random directions of the sensitivity numbers."""
RANKED, LEADING = 4, 32
"""Images and singular values of the Jacobian's rank."""
BITS = 8


def information(m: Material) -> list[Number]:
    """I(x;z) by every estimator, between leading principal components of both."""
    labels = m.labels if bool((m.labels >= 0).all()) else None
    components = f"{m.narrow_x.shape[1]} and {m.narrow_z.shape[1]} principal components of x and z"
    found = []
    for name in ESTIMATORS.names():
        rows = calibrated(partial(_estimate, m, name), m.narrow_x, m.narrow_z, labels=labels, seed=m.seed)
        own, known = rows[0].estimate, {f"I({row.pair})": row.estimate.nats for row in rows[1:]}
        found.append(
            Number(
                name=f"I(x;z), {name}", family="information", value=own.nats, unit="nats", leaks="more",
                interval=own.interval, cap=own.cap, samples=own.samples, calibration=known,
                note=f"{components}; {own.note}{'; at its cap' if own.saturated else ''}",
            )
        )  # fmt: skip
    return found


def entropy(m: Material) -> list[Number]:
    """What crosses, in bits, and the count of SiftFunnel."""
    x, z = m.x[:CODED], m.z[:CODED]
    number = partial(Number, family="entropy", leaks="more")
    return [
        number(
            name="H(z), 8 bit", value=quantised_entropy(m.z, BITS), unit="bits a sample", samples=len(m.z),
            cap=float(BITS * m.z[0].numel()),
            calibration={"of the image": m.once("entropy", lambda: quantised_entropy(m.x, BITS))},
            note="sum of the elements' own entropies, an upper bound of the joint one",
        ),
        number(
            name="coded size", value=coded_bits(z, BITS), unit="bits a sample", samples=len(z),
            cap=float(BITS * m.z[0].numel()),
            calibration={"of the image": m.once("coded", lambda: coded_bits(x, BITS))},
            note="8 bits an element per channel, then DEFLATE",
        ),
        number(
            name="effective volume", value=effective_volume(m.z), unit="non-zeros a sample", samples=len(m.z),
            cap=float(m.z[0].numel()),
            calibration={"of the image": m.once("volume", lambda: effective_volume(m.x))},
            note="as SiftFunnel counts; not privacy: the positions of the few tell nearly as much as their values",
        ),
    ]  # fmt: skip


def dependence(m: Material) -> list[Number]:
    """How alike the distances between images and between features are."""
    x, z, broken = m.x[:PAIRS], m.z[:PAIRS], m.shuffled(min(PAIRS, len(m.x)))
    measures: dict[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]] = {
        "distance correlation": ("squared, U-centred", distance_correlation_unbiased),
        "HSIC": ("Gaussian kernels of median width, unbiased", hsic_unbiased),
        "linear CKA": ("debiased", linear_cka_debiased),
    }
    found = []
    for name, (note, measure) in measures.items():
        calibration = {
            "x with x": m.once(name, lambda measure=measure: float(measure(x, x))),  # type: ignore[misc]
            "shuffled": float(measure(x, z[broken])),
        }
        found.append(
            Number(
                name=name, family="dependence", value=float(measure(x, z)), unit="1", leaks="more", samples=len(x),
                calibration=calibration, note=note,
            )
        )  # fmt: skip
    return found


def geometry(m: Material) -> list[Number]:
    """Class radius, its label-free kin, and the bound on H(x|z) that the Golden Partition Zone argues from."""
    radius = class_radius(m.z, m.labels, m.classes, seed=m.seed)
    mixed = class_radius(m.z, m.labels[m.shuffled()], m.classes, resamples=0, seed=m.seed)
    clusters = cluster_radius(m.z[:PAIRS], m.classes, m.seed)
    known = m.labels[m.labels >= 0]
    shares = known.bincount(minlength=m.classes).double() / len(known)
    left = f"{radius.left_out} classes left out; " if radius.left_out else ""
    number = partial(Number, family="geometry", leaks="more", samples=len(known))
    own = effective_rank(m.z[:PAIRS])
    # Not cut off at 0, so that cuts can be compared below it too.
    h_z, kappa = crossing_bound(m.z, radius, float(torch.special.entr(shares).sum()), bits=BITS)
    return [
        number(
            name="R_c^2/D", value=radius.per_dimension, unit="channel variances",
            interval=_finite(radius.per_dimension_interval), calibration={"labels shuffled": mixed.per_dimension},
            note=f"{left}class radius per dimension; channels standardised over the whole set",
        ),
        number(
            name="R_c^2/total", value=radius.relative, unit="share", interval=_finite(radius.relative_interval),
            calibration={"labels shuffled": mixed.relative}, note=f"{left}variance within classes over all variance",
        ),
        number(
            name="cluster radius", value=clusters.relative, unit="share", samples=min(PAIRS, len(m.z)),
            calibration={"of the image": m.once("clusters", lambda: _clusters_of_images(m))},
            note=f"the same about {m.classes} k-means clusters: needs no labels",
        ),
        number(
            name="H(x|z) bound", value=m.once("H(x)", lambda: _entropy_of_images(m)) - h_z - kappa,
            unit="nats", leaks="less", cap=m.once("H(x)", lambda: _entropy_of_images(m)),
            note="H(x) - h(z) - kappa, z at 8 bits: H(x) from the coded size of the images, h(z) the smaller of the "
            "feature and the decision bound; at or below 0 it says nothing",
        ),
        number(
            name="effective rank of z", value=own, unit="directions", cap=float(min(PAIRS, len(m.z)) - 1),
            samples=min(PAIRS, len(m.z)),
            calibration={"of the image": m.once("rank", lambda: effective_rank(m.x[:PAIRS]))},
            note="exp of the entropy of the singular values",
        ),
    ]  # fmt: skip


def sensitivity(m: Material) -> list[Number]:
    """How strongly z moves with x, in units of the features' spread, and the certificate where there is noise."""
    x, f, defense = m.x[:PROBED], m.deterministic, m.configuration.protected.defense
    spread = float((m.z - m.z.mean(0)).square().mean().sqrt()) or 1.0
    trace = fisher_trace(f, x, spread, probes=PROBES, seed=m.seed)
    pixels = float((m.x - m.x.mean(0)).square().mean().sqrt()) or 1.0
    noise = defense.spread(m.z)
    if noise is None:
        value, words = None, "no certificate: the noise is not of a kind that dFIL covers"
    else:
        score = gaussian_score(m.x)
        found = certificate(f, x, noise.double(), score=score, probes=PROBES, seed=m.seed)
        value, words = found.floor, found.words
    number = partial(Number, family="sensitivity", samples=len(x))
    return [
        number(
            name="dFIL at unit noise",
            value=float(trace.dfil.mean()),
            unit="1 / squared pixel",
            leaks="more",
            calibration={"of the image": 1 / pixels**2},
            note="were noise as strong as the features added; no certificate, for it is not",
        ),
        number(
            name="effective rank of J",
            leaks="more",
            unit="directions",
            cap=float(LEADING),
            samples=RANKED,
            value=float(rank(f, x[:RANKED], probes=LEADING, seed=m.seed).mean()),
            note=f"of the {LEADING} leading singular values of dz/dx",
        ),
        number(name="dFIL floor", value=value, unit="MSE per element", leaks="less", note=words),
    ]


FAMILIES: Mapping[str, Callable[[Material], list[Number]]] = {
    "information": information,
    "entropy": entropy,
    "dependence": dependence,
    "geometry": geometry,
    "sensitivity": sensitivity,
}


def _estimate(m: Material, name: str, x: Tensor, z: Tensor, *, seed: int = 0) -> MIEstimate:
    """What is about the images alone is the same at every cut, and estimated once."""
    key = f"{name} {digest(x.cpu().numpy(), z.cpu().numpy())}"
    return m.once(key, lambda: ESTIMATORS.build(name, x=x, z=z, seed=seed))


def _finite(interval: tuple[float, float]) -> tuple[float, float] | None:
    return interval if all(map(math.isfinite, interval)) else None


def _clusters_of_images(m: Material) -> float:
    return cluster_radius(m.x[:PAIRS], m.classes, m.seed).relative


def _entropy_of_images(m: Material) -> float:
    return coded_bits(m.x[:CODED], BITS) * math.log(2)
