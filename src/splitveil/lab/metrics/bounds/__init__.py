"""At most this leaks: floors under the error of every adversary, where there is real noise, and estimates where not."""

from splitveil.lab.metrics.bounds.dfil import Certificate, certificate, floor_any, floor_unbiased, sigma_for_floor
from splitveil.lab.metrics.bounds.fisher import FisherTrace, fisher_trace
from splitveil.lab.metrics.bounds.prior import ScoreFunction, gaussian_score, matched_scores, noise_score

__all__ = [
    "Certificate",
    "FisherTrace",
    "ScoreFunction",
    "certificate",
    "fisher_trace",
    "floor_any",
    "floor_unbiased",
    "gaussian_score",
    "matched_scores",
    "noise_score",
    "sigma_for_floor",
]
