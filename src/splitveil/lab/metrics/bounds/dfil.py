"""Diagonal Fisher information leakage of noisy features, and the reconstruction error that it guarantees.

Maeng, Guo, Kariyappa, Suh, "Bounding the Invertibility of Privacy-Preserving Instance Encoding Using Fisher
Information", NeurIPS 2023. For ``z = f(x) + sigma * n``, n standard normal,

    I(x) = J(x)^T diag(1 / sigma^2) J(x),  J = df/dx,  dFIL(x) = Tr I(x) / d

What the floors hold for: the *mean* squared error per element over inputs drawn from the data's density, pixels in
[0, 1], any number of parameters known to the adversary, never a single image. They need

* Gaussian noise, independent between features, of a size that does not depend on x, drawn afresh for each request and
  added last. Clipping before it belongs into f; a codec after it only processes z and can but raise the error.
* an f that is Lipschitz (ReLU and max pooling are: their kinks have probability 0 where x has a density) and that
  treats samples independently (BatchNorm in eval mode).
* for the floor of *any* adversary, a density that is smooth and vanishes at the end of its support. Images in [0, 1]
  have none, so that floor speaks about images blurred by `ScoreFunction.smoothing`, and is as good as the estimate of
  Tr S. For images as they are it is an estimate, and it never exceeds d / Tr S, for photographs little above
  smoothing^2.
* for the floor of *unbiased* adversaries, an adversary whose mean guess is x for every x. Real ones are biased towards
  usual images and do get below it; it is no promise.

Tr I is a mean over the images given; `FisherTrace.standard_error` tells how far to trust it.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.metrics.bounds.fisher import Encoder, cut_shape, fisher_trace, noise_scale
from splitveil.lab.metrics.bounds.prior import ScoreFunction, smoothed


@dataclass(frozen=True, slots=True)
class Certificate:
    """At most this leaks. All floors are mean squared errors per element over the data, pixels in [0, 1].

    Attributes:
        floor: no adversary gets below it; as good as the estimate of Tr S. None: no certificate.
        surest: the same with the largest Tr S that the blur allows, so that nothing about the data is estimated.
        unbiased: no unbiased adversary gets below it; others may.
        trace: E[Tr I] for all queries together.
        trace_error: its standard error.
        score: Tr S, with method and smoothing.
        queries: answers to the same input that the adversary reads.
        words: what the numbers mean, or why there are none.
    """

    floor: float | None
    surest: float | None
    unbiased: float | None
    trace: float | None
    trace_error: float | None
    score: ScoreFunction
    queries: int
    words: str


def floor_unbiased(dfil: Tensor) -> Tensor:
    """Mean squared error per element that no unbiased adversary beats, 1 / dFIL (Cramer-Rao). Any shape."""
    return 1 / dfil


def floor_any(trace_mean: float, trace_score: float, d: int) -> float:
    """Mean squared error per element that no adversary beats, d / (E[Tr I] + Tr S) (van Trees; Gill and Levit 1995).

    Args:
        trace_mean: E[Tr I] over the data.
        trace_score: Tr S of the data's density, see `prior`.
        d: elements of one input.

    Raises:
        InputError: no information at all, neither in z nor in the prior.
    """
    if not (trace_mean >= 0 and trace_score >= 0 and trace_mean + trace_score > 0):
        raise InputError(
            f"expected E[Tr I] and Tr S of 0 or more, one above, got {trace_mean} and {trace_score}; "
            "estimate Tr S with gaussian_score."
        )
    return d / (trace_mean + trace_score)


def certificate(
    f: Encoder,
    x: Tensor,
    sigma: float | Tensor,
    *,
    score: ScoreFunction,
    queries: int = 1,
    probes: int | None = None,
    seed: int = 0,
) -> Certificate:
    """What features ``f(x) + sigma * n`` leak at most.

    Args:
        f: the deterministic part, clipping included; a codec after the noise is left out.
        x: (N, C, H, W) in [0, 1], images of the data; blurred here as `score` says.
        sigma: one number or a tensor that broadcasts to (*cut); 0 gives no certificate.
        score: Tr S of the data, see `prior`.
        queries: answers to one input, each with its own noise, that the adversary may put together.
        probes: as in `fisher_trace`.
        seed: of blur and probes.

    Raises:
        InputError: noise whose size depends on x, `score` of another size of input, no query.
    """
    _check(x, score, queries)
    scale = noise_scale(sigma, cut_shape(f, x))
    silent = int((scale == 0).sum())
    if silent:
        words = "no certificate: " + (
            "nothing random leaves the device"
            if silent == scale.numel()
            else f"{silent} of {scale.numel()} features leave the device without noise"
        )
        return Certificate(None, None, None, None, None, score, queries, words)
    found = fisher_trace(f, smoothed(x, score.smoothing, seed), sigma, probes=probes, seed=seed)
    trace, d = queries * found.mean, found.d
    floor = floor_any(trace, score.trace, d)
    surest = 0.0 if math.isinf(score.at_most) else floor_any(trace, score.at_most, d)
    return Certificate(
        floor=floor,
        surest=surest,
        unbiased=d / trace if trace > 0 else math.inf,
        trace=trace,
        trace_error=queries * found.standard_error,
        score=score,
        queries=queries,
        words=f"no adversary's mean squared error per element lies below {floor:.3g} by this estimate of the data "
        f"({surest:.3g} by none) on average over inputs blurred by {score.smoothing:g}; {len(x)} images, "
        f"{queries} {'query' if queries == 1 else 'queries'} an input, prior: {score.method}",
    )


def sigma_for_floor(
    f: Encoder,
    x: Tensor,
    mse: float,
    *,
    score: ScoreFunction | None,
    pattern: float | Tensor = 1.0,
    queries: int = 1,
    probes: int | None = None,
    seed: int = 0,
) -> float:
    """Factor on `pattern` that makes the floor `mse`, in closed form: Tr I falls as 1 / sigma^2.

    Args:
        f: as in `certificate`.
        x: (N, C, H, W) in [0, 1].
        mse: the floor wanted, per element, pixels in [0, 1].
        score: Tr S for a floor that no adversary beats; None for the floor of unbiased adversaries.
        pattern: noise of the features relative to each other, as `sigma` in `certificate`.
        queries: as in `certificate`.
        probes: as in `fisher_trace`.
        seed: of blur and probes.

    Returns:
        the factor; 0 where f tells nothing and no noise is needed.

    Raises:
        InputError: a floor that no noise can guarantee, since the prior alone is bounded by d / Tr S only.
    """
    if not (math.isfinite(mse) and mse > 0):
        raise InputError(f"expected a mean squared error above 0, got {mse}; write for example 0.01, which is 20 dB.")
    _check(x, score, queries)
    d = x[0].numel()
    needed = d / mse - (score.trace if score is not None else 0.0)
    if score is not None and needed <= 0:
        raise InputError(
            f"expected a floor below {d / score.trace:.4g}, the one of an adversary who reads nothing, got {mse}; "
            "ask for less."
        )
    blurred = x if score is None else smoothed(x, score.smoothing, seed)
    unit = fisher_trace(f, blurred, pattern, probes=probes, seed=seed).mean
    return math.sqrt(queries * unit / needed)


def _check(x: Tensor, score: ScoreFunction | None, queries: int) -> None:
    if queries < 1:
        raise InputError(f"expected 1 query or more, got {queries}; use 1 where every input is sent once.")
    if score is not None and score.d != x[0].numel():
        raise InputError(
            f"expected a score of inputs with {x[0].numel()} elements, got {score.d}; estimate it on images like x."
        )
