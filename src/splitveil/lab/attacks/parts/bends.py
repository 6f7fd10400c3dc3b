"""Smooth rising functions that a channel may have to be read through: power transforms and their kin.

Logarithms about a bound below, above or both (logits), the inverse of softplus, inverse hyperbolic sines (Burbidge,
Magee and Robb 1988), hyperbolic sines, exponentials, and powers (Box and Cox 1964). A bend is so
smooth that a search can descend through it, which a curve of averages, with a kink at every knot, makes slow.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

SCALES = (1e-3, 1e-2, 0.1, 1.0)
"""Of inverse hyperbolic sines, in spreads of the channel, and of all channels."""
STEEP = (0.3, 1.0)
"""Of hyperbolic sines and of the inverse of softplus, in the same."""
POWERS = (0.2, 1 / 3, 0.5, 2.0, 3.0)
MARGINS = (1e-4, 1e-2, 0.1)
"""Distances of a bound beyond the outermost value, in spreads."""
NEAREST, FARTHEST = 1e-6, 8.0
"""Where a logarithm, and a hyperbolic sine, goes on as a straight line."""
FINER = (0.5, 0.71, 0.87, 1.15, 1.41, 2.0)
"""Factors of a scale, or a power, that are tried about the best of these."""


@dataclass(frozen=True, slots=True)
class Bend:
    """A rising function of each channel.

    Attributes:
        kind: in `KINDS`.
        centre: (c,), its zero, or a bound that values do not reach.
        scale: (c,).
        power: of powers; the sign of logarithms.
    """

    kind: str
    centre: Tensor
    scale: Tensor
    power: float = 1.0

    def __call__(self, z: Tensor, channels: Tensor | slice = slice(None)) -> Tensor:
        """Values of some channels. z: (..., k) of those `channels` -> (..., k)."""
        return KINDS[self.kind]((z - self.centre[channels]) / self.scale[channels], self.power)

    def neighbours(self) -> "list[Bend]":
        """The same with other scales; powers with other powers."""
        if self.kind in ("straight", "log", "logit"):
            return []
        if self.kind == "power":
            return [replace(self, power=self.power * factor) for factor in FINER]
        return [replace(self, scale=self.scale * factor) for factor in FINER]


def bends_of(z: Tensor) -> list[Bend]:
    """All that are tried for channels like these, the straight line first. z: (R, c)."""
    own, low, high = z.std(0).clamp_min(1e-30), z.min(0).values, z.max(0).values
    whole, zero = own.median().expand_as(own), torch.zeros_like(own)
    found = [Bend("straight", zero, own)]
    for unit in (own, whole):
        found += [Bend("asinh", zero, k * unit) for k in SCALES]
        found += [Bend(kind, zero, k * unit) for kind in ("sinh", "powers of e", "softplus", "exp") for k in STEEP]
        found += [Bend("exp", zero, k * unit, -1.0) for k in STEEP]
    found += [Bend("power", zero, own, power) for power in POWERS]
    for margin in MARGINS:
        found += [Bend("log", low - margin * own, own), Bend("log", high + margin * own, own, -1.0)]
        found.append(Bend("logit", low - margin * own, high - low + 2 * margin * own))
    # Bounds that values of such a channel would have by themselves.
    found += [Bend("log", torch.where(low > 0, zero, low - own), own)]
    found += [Bend("log", torch.where(high < 0, zero, high + own), own, -1.0)]
    for bottom in (0.0, -1.0):
        least, most = low.clamp_max(bottom), high.clamp_min(1.0)
        found.append(Bend("logit", least, most - least))
    return found


def _log(t: Tensor, sign: float) -> Tensor:
    t = sign * t
    inside = t.clamp_min(NEAREST)
    return sign * (inside.log() + (t - inside) / NEAREST)


def _sinh(t: Tensor, _: float) -> Tensor:
    inside = t.clamp(-FARTHEST, FARTHEST)
    return inside.sinh() + (t - inside)


def _exp(t: Tensor, sign: float) -> Tensor:
    t = sign * t
    inside = t.clamp_max(FARTHEST)
    return sign * (inside.exp() + (t - inside))


def _powers_of_e(t: Tensor, _: float) -> Tensor:
    """The inverse of sign(h) log(1 + |h|)."""
    inside = t.clamp(-FARTHEST, FARTHEST)
    return inside.sign() * inside.abs().expm1() + (t - inside)


def _power(t: Tensor, power: float) -> Tensor:
    # Not t.abs() ** power, whose slope is infinite where t is 0.
    return t.sign() * ((t.square() + 1e-24) ** (power / 2))


def _logit(t: Tensor, _: float) -> Tensor:
    return _log(t, 1.0) - _log(1 - t, 1.0)


def _softplus(t: Tensor, _: float) -> Tensor:
    # The inverse of log(1 + exp(h)): t + log(1 - exp(-t)).
    inside = t.clamp_min(NEAREST)
    return inside + torch.log(-torch.expm1(-inside)) + (t - inside) / NEAREST


KINDS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "straight": lambda t, _: t,
    "asinh": lambda t, _: t.asinh(),
    "sinh": _sinh,
    "exp": _exp,
    "powers of e": _powers_of_e,
    "power": _power,
    "log": _log,
    "logit": _logit,
    "softplus": _softplus,
}
