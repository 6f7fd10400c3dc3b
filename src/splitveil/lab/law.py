"""`Law`: what crossings of one input say of the features behind them, to one who knows the defence and the codec."""

from collections.abc import Callable

import torch
from torch import Tensor

from splitveil.wire.codecs import Codec

SLIGHT = 1e-2
"""Noise, relative to the mean variance, below which features count alike."""
INSIDE = 0.05
"""Weight of the distance to a cell's middle beside that to its ends: a search that starts outside would else stop at an
end, though most that is rounded lies further in (ours; 0.01 to 0.1 gain at 2 bits, 0.1 at 3)."""
TINY = 1e-30

Distance = Callable[[Tensor], Tensor]
"""Features before the defence (n, *h) -> how badly they fit what was seen, (n,)."""


class Law:
    """How features become what is seen: exactly, but for a codec's rounding, or with Gaussian noise of a known size.

    Three things follow, and every law has them: how several crossings of one input are put together (`combined`),
    between which numbers the features certainly lie (`bounds`), and how badly a guess of them fits (`to`), which is
    the likelihood in units of the features' own spread, so that scaling them changes nothing.

    Args:
        clean: features before the defence (n, *h) -> what leaves without its randomness, (n, *cut).
        codec: what is seen went through it; None for none.
        deviation: features (n, *h) -> standard deviation of the noise in what `combined` gives, (*cut) or (n, *cut);
            None for no noise.
    """

    rewrites = False
    """One crossing alone is read otherwise than as it came: `combined` of it is another tensor."""

    def __init__(
        self,
        clean: Callable[[Tensor], Tensor],
        codec: Codec | None = None,
        *,
        deviation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.clean, self.codec, self.deviation = clean, codec, deviation

    def combined(self, seen: Tensor) -> Tensor:
        """All that several crossings say together. seen: (k, n, *cut) -> (n, *cut)."""
        return seen.mean(0) if len(seen) > 1 else seen[0]

    def cell(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Between what and what the codec was given that made z of it: (n, *cut) each, infinite at an open end."""
        if self.codec is None:
            return z, z
        low, high = self.codec.cell(z)
        return low, high

    def bounds(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Between what and what `clean` features certainly lie. z: (n, *cut) as seen -> (n, *cut) each.

        Equal where z is exact, infinite where it says nothing for certain.
        """
        if self.deviation is not None:
            endless = torch.full_like(z, torch.inf)
            return -endless, endless
        return self.cell(z)

    def exact(self, z: Tensor) -> Tensor:
        """Which numbers are the features' own, up to the codec's cell: (n, *cut), bool."""
        low, high = self.bounds(z)
        return low.isfinite() | high.isfinite()

    def power(self, z: Tensor) -> Tensor:
        """Squares of what is exact about each sample's mean of it, the unit of distances: (n, *cut) -> (n,)."""
        flat, there = z.flatten(1), self.exact(z).flatten(1)
        mean = (flat * there).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp_min(1)
        return _nonzero(((flat - mean).square() * there).sum(1))

    def to(self, z: Tensor) -> Distance:
        """The distance of features from what was seen. z: (n, *cut), as `combined` gives it."""
        if self.deviation is None:
            (low, high), power = self.bounds(z), self.power(z)
            closed = (low.isfinite() & high.isfinite() & self.exact(z)).flatten(1)

            def off(h: Tensor) -> Tensor:
                mean = self.clean(h).float()
                within = (mean - z).flatten(1).square() * closed
                beyond = outside(mean, low, high).square()
                return torch.where(closed, (1 - INSIDE) * beyond + INSIDE * within, beyond).sum(1) / power

            return off
        varying = (z.flatten(1) - z.flatten(1).mean(1, keepdim=True)).square()
        # Noise says more of where z lies than a codec's cell does, but where that has an open end.
        low, high = (torch.where(end.isfinite(), z, end) for end in self.cell(z))

        def far(h: Tensor) -> Tensor:
            mean, deviation = self.clean(h).float(), self._deviation(h)
            weight = weights(deviation.detach().expand_as(mean))
            return self._misfit(outside(mean, low, high), deviation, weight) / _nonzero((varying * weight).sum(1))

        return far

    def _deviation(self, h: Tensor) -> Tensor:
        if self.deviation is None:
            raise TypeError("a law without noise has no deviation")
        return self.deviation(h).float()

    def _misfit(self, off: Tensor, deviation: Tensor, weight: Tensor) -> Tensor:
        """(n,). off, weight: (n, elements)."""
        return (off.square() * weight).sum(1)


class After(Law):
    """Another law, behind something that features pass before: a part of a chain.

    Args:
        first: (n, *h) -> what the law's own features are.
        then: the law.
    """

    def __init__(self, first: Callable[[Tensor], Tensor], then: Law) -> None:
        noise = then.deviation
        super().__init__(
            lambda h: then.clean(first(h)), then.codec, deviation=None if noise is None else lambda h: noise(first(h))
        )
        self.first, self.then, self.rewrites = first, then, then.rewrites

    def combined(self, seen: Tensor) -> Tensor:
        return self.then.combined(seen)

    def bounds(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.then.bounds(z)

    def exact(self, z: Tensor) -> Tensor:
        return self.then.exact(z)

    def to(self, z: Tensor) -> Distance:
        far = self.then.to(z)
        return lambda h: far(self.first(h))


class Sharp(Law):
    """Noise with a Laplace distribution: distances count by size, not by square, so that most numbers fit closely.

    Of several crossings the median is taken, which for this noise has half the variance of the mean, and is normal
    enough for squares.

    Args:
        clean: see `Law`.
        codec: see `Law`.
        deviation: of one crossing.
        times: crossings that are put together.
    """

    FEW = 3
    """Crossings whose median is still sharp."""
    ROUND = 1e-2
    """Of the deviation, within which the distance is rounded off for a gradient to pass 0."""

    def __init__(
        self,
        clean: Callable[[Tensor], Tensor],
        codec: Codec | None,
        *,
        deviation: Callable[[Tensor], Tensor],
        times: int = 1,
    ) -> None:
        super().__init__(clean, codec, deviation=lambda h: deviation(h) / times**0.5)
        self.times = times

    def combined(self, seen: Tensor) -> Tensor:
        return median(seen)

    def _misfit(self, off: Tensor, deviation: Tensor, weight: Tensor) -> Tensor:
        if self.times > self.FEW:
            return super()._misfit(off, deviation, weight)
        size = deviation.detach().flatten(1) if deviation.ndim == off.ndim else deviation.detach().flatten()
        soft = (self.ROUND * size).clamp_min(TINY)
        return ((off.square() + soft.square()).sqrt() - soft).mul(8**0.5 * size * weight).sum(1)


class Masked(Law):
    """Numbers that are sent as they are, or not at all: what is missing says less, or nothing, and never 0.

    A missing number is seen as what the codec makes of 0. Of several crossings each number is taken from one where it
    is not missing.
    """

    def combined(self, seen: Tensor) -> Tensor:
        there = self.sent(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])
        return seen.gather(0, there.to(torch.uint8).argmax(0, keepdim=True))[0]

    def sent(self, z: Tensor) -> Tensor:
        """Which numbers are there: (n, *cut) as seen -> (n, *cut), bool."""
        return z != self.nothing(z)

    def nothing(self, z: Tensor) -> Tensor:
        """What is seen of a 0, (n, *cut)."""
        zeros = torch.zeros_like(z)
        if self.codec is None:
            return zeros
        seen: Tensor = self.codec.decode(self.codec.encode(zeros))
        return seen

    def bounds(self, z: Tensor) -> tuple[Tensor, Tensor]:
        there = self.sent(z)
        low, high = self.cell(z)
        return torch.where(there, low, -torch.inf), torch.where(there, high, torch.inf)


def weights(deviation: Tensor) -> Tensor:
    """(n, *cut) -> (n, elements): the less noise, the more; only the ratios count."""
    variance = deviation.float().flatten(1).square()
    middle = variance.mean(1, keepdim=True)
    return torch.where(middle > 0, middle / (variance + SLIGHT * middle).clamp_min(TINY), 1.0)


def median(seen: Tensor) -> Tensor:
    """(k, ...) -> (...): the middle one, or the mean of the two in the middle."""
    ordered, k = seen.sort(0).values, len(seen)
    return ordered[k // 2] if k % 2 else (ordered[k // 2 - 1] + ordered[k // 2]) / 2


def outside(mean: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """How far numbers lie outside of bounds, with sign: (n, *cut) each -> (n, elements)."""
    return (mean - torch.minimum(torch.maximum(mean, low), high)).flatten(1)


def _nonzero(power: Tensor) -> Tensor:
    return torch.where(power > 0, power, 1.0)
