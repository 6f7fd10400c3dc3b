"""From cheap numbers to what attacks measured: monotone, and calibrated on the few choices that were measured.

PrivyNet characterises leakage and accuracy once and reads topologies off the fitted curves (Li et al. 2017, arXiv
1709.06161, as read in our notes). Ours fits isotonic curves, and moves them by what was measured nearby.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from splitveil.core.records import ProxyCheck
from splitveil.lab.auditing.criterion.correlation import correlated, ranks
from splitveil.lab.planning.space import Option
from splitveil.lab.seeds import derive

ENOUGH = 3
"""Measured choices from which a curve is fitted; below, the proxy is shifted."""
SLOPE = 1e-3
"""Added to a curve's flat parts, so that the proxy still breaks ties there."""
OTHER_CUT, OTHER_FAMILY, APART, PRIOR = 1.0, 1.5, 2.0, 0.3
RESAMPLES = 1000


class Surrogate:
    """Predicts one measured number from one proxy, both by option.

    An isotonic curve through all measured options, plus the mean of what it missed by there, weighted by how near an
    option is: same cut, same family, similar strength (our reading of "surrogate"; no paper gives these weights).

    Args:
        proxy: of every option.
        measured: of those that were measured.
        beyond: slope of the curve outside the proxies of what was measured, where an isotonic curve knows nothing.
    """

    def __init__(self, proxy: Mapping[Option, float], measured: Mapping[Option, float], *, beyond: float = 1.0) -> None:
        self.proxy, self.beyond = proxy, beyond
        self.known = [o for o in measured if o in proxy]
        x = np.array([proxy[o] for o in self.known], dtype=np.float64)
        y = np.array([measured[o] for o in self.known], dtype=np.float64)
        self._curve = IsotonicRegression(out_of_bounds="clip").fit(x, y) if len(x) >= ENOUGH else None
        self._shift = float((y - x).mean()) if len(x) and self._curve is None else 0.0
        self._missed = y - self._base(x)

    def __call__(self, option: Option) -> float:
        """What measuring this option is expected to give."""
        base = float(self._base(np.array([self.proxy[option]]))[0])
        if not self.known:
            return base
        weights = np.array([math.exp(-_apart(option, other)) for other in self.known])
        return base + float(weights @ self._missed / (weights.sum() + PRIOR))

    def _base(
        self, x: "np.ndarray[tuple[int], np.dtype[np.float64]]"
    ) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        if self._curve is None or not len(x):
            return np.asarray(x + self._shift, dtype=np.float64)
        inside = np.clip(x, self._curve.X_min_, self._curve.X_max_)
        return np.asarray(self._curve.predict(x) + SLOPE * x + self.beyond * (x - inside), dtype=np.float64)


def rank_check(
    proxy: Mapping[Option, float],
    measured: Mapping[Option, float],
    *,
    names: tuple[str, str],
    over: str,
    seed: int = 0,
) -> ProxyCheck:
    """Spearman's rank correlation with a 95 % percentile bootstrap over the options.

    Args:
        proxy: by option.
        measured: by option.
        names: of the proxy and of the leakage.
        over: ``cuts``: undefended splits, one a cut; ``widths``: ranks within options that differ in strength only,
            pooled over all such groups of three or more; ``choices``: everything measured.
        seed: of the resampling.
    """
    both = [o for o in measured if o in proxy]
    if over == "cuts":
        both = [o for o in both if o.defense == "none" and o.codec == "raw"]
    groups = [both]
    if over == "widths":
        named = {o.group for o in both}
        groups = [g for g in ([o for o in both if o.group == name] for name in sorted(named)) if len(g) >= ENOUGH]
    pairs = [[_ranks(by, g) for by in (proxy, measured)] for g in groups if len(g) >= ENOUGH]
    n = sum(len(a) for a, _ in pairs)
    if not n:
        few = sum(map(len, groups))
        return ProxyCheck(proxy=names[0], leakage=names[1], over=over, rho=None, n=few)
    a, b = (torch.cat(side) for side in zip(*pairs, strict=True))
    draws = np.random.default_rng(derive(seed, "rank check", over))
    drawn = [correlated(a[i], b[i]) for i in torch.from_numpy(draws.integers(0, n, (RESAMPLES, n)))]
    fit = [r for r in drawn if r is not None]
    low, high = np.quantile(fit, (0.025, 0.975)) if len(fit) > RESAMPLES / 2 else (-1.0, 1.0)
    rho = correlated(a, b)
    interval = None if rho is None else (float(low), float(high))
    return ProxyCheck(proxy=names[0], leakage=names[1], over=over, rho=rho, interval=interval, n=n)


def _apart(one: Option, two: Option) -> float:
    return (
        OTHER_CUT * (one.cut != two.cut)
        + OTHER_FAMILY * (one.family != two.family)
        + APART * abs(one.strength - two.strength)
    )


def _ranks(by: Mapping[Option, float], group: Sequence[Option]) -> Tensor:
    """Ranks within a group, about their mean, so that groups may be pooled."""
    found = ranks(torch.tensor([by[o] for o in group], dtype=torch.float64))
    return found - found.mean()
