"""Rising curves, one a channel, after which features are as linear in the image as they can be.

An additive model (Hastie and Tibshirani 1986) whose input is features and whose output is the image about their place,
fitted channel by channel: the idea of alternating conditional expectations (Breiman and Friedman 1985). What it is
after does not change under any rising function, so neither does what comes out: whoever sends exp(h), h^3 or log(h)
instead of h gets the same values back. That an adversary undoes such functions so is our own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from splitveil.lab.attacks.parts.bends import Bend, bends_of
from splitveil.lab.attacks.parts.places import Places
from splitveil.lab.attacks.parts.ridge import ridge_weights

KNOTS = 64
SWEEPS = 2
"""Over all channels."""
TARGETS = 16
"""Directions of the image that are to be told."""
PENALTY, FAINT = 1e-3, 0.3
"""Of the ridge; share of the usual channel's weight that shrinks what a channel with less is asked for."""
RANKED = 0.05
"""Share of the ranks in a curve, so that values that the image does not tell apart stay apart."""
REFINED = 4
"""Times that the scale of the common bend is made better."""
NEARLY = 1.04
"""Of the least cost: within it a straight line will do."""
OFTEN, END = 0.02, 0.99
"""Share of rows from which on the least value of a channel is one that is taken often; where the others nearly end."""
SAME, KINKED = 0.05, 0.05
"""By so much must the correlation of another bend be above that of the common one, and a curve's above a bend's."""
FEWEST = 8
"""Rows on either side of a knot that are averaged at least."""


class Curves(nn.Module):
    """A rising function for each channel: a bend where one fits, else straight between knots. z: (..., c) -> (..., c).

    Args:
        knots: (c, K), rising, values may repeat.
        values: (c, K) at the knots.
        groups: bends and the channels that they are for; the others go by their knots.
    """

    knots: Tensor
    values: Tensor
    slopes: Tensor

    def __init__(self, knots: Tensor, values: Tensor, groups: Sequence[tuple[Bend, Tensor]] = ()) -> None:
        super().__init__()
        run, rise = knots.diff(dim=1), values.diff(dim=1)
        whole = (values[:, -1:] - values[:, :1]) / (knots[:, -1:] - knots[:, :1])
        slopes = torch.where(run > 0, rise / run, whole).nan_to_num(0.0, 0.0, 0.0)
        for name, value in (("knots", knots), ("values", values), ("slopes", slopes)):
            self.register_buffer(name, value.contiguous())
        self.groups = tuple(groups)

    def forward(self, z: Tensor) -> Tensor:
        if not self.groups:
            return self._between(z, slice(None))
        parts, order = list[Tensor](), list[Tensor]()
        for bend, channels in self.groups:
            parts.append(bend(z[..., channels], channels))
            order.append(channels)
        used = torch.cat(order)
        left = torch.ones(z.shape[-1], dtype=torch.bool, device=z.device)
        left[used] = False
        if bool(left.any()):
            rest = left.nonzero()[:, 0]
            parts.append(self._between(z[..., rest], rest))
            used = torch.cat([used, rest])
        return torch.cat(parts, -1)[..., used.argsort()]

    def inverse(self) -> "Curves":
        """Values back to what they are the values of, between knots."""
        return Curves(self.values, self.knots)

    def _between(self, z: Tensor, channels: Tensor | slice) -> Tensor:
        knots, values, slopes = self.knots[channels], self.values[channels], self.slopes[channels]
        columns = z.reshape(-1, z.shape[-1]).T.contiguous()
        place = torch.searchsorted(knots[:, 1:-1].contiguous(), columns.detach(), right=True)
        value, slope = values.gather(1, place), slopes.gather(1, place)
        return (value + slope * (columns - knots.gather(1, place))).T.reshape(z.shape)


def informative_curves(places: Places) -> Curves:
    """The curves of the channels at these places.

    The bend by which all channels together tell most of the image; for a channel that another bend makes much more
    linear, that one; and where none does, the curve of an additive model of the image.
    """
    count = places.aside
    z, y = places.z[:count], _principal(places.parts[:count])
    bends, bins = bends_of(z), Bins(z)
    best = _common(bends, z, y)
    if best.kind == "straight":
        return Curves(bins.knots, bins.knots, [(best, torch.arange(z.shape[1], device=z.device))])
    bends, common = [*bends, best], len(bends)
    chosen, values = [common] * z.shape[1], bins.ranked
    u = _usable(best(z))
    for _ in range(SWEEPS):
        doubles = u.double()
        weights = next(ridge_weights(doubles.T @ doubles, doubles.T @ y.double(), (PENALTY,))).float()
        left, length = y - u @ weights, weights.square().sum(1)
        faint = FAINT * length.mean()
        for c, weight in enumerate(weights):
            one = slice(c, c + 1)
            wanted = u[:, c] + left @ weight / (length[c] + faint).clamp_min(1e-30)
            values[c] = bins.rising(c, wanted)
            curve = _usable(Curves(bins.knots[one], values[one])(z[:, one]))
            tried = _usable(torch.cat([bend(z[:, one], one) for bend in bends], 1))
            fits = torch.cat([tried, curve], 1).T @ _usable(wanted[:, None])[:, 0] / count
            fits[common] += SAME
            fits[-1] -= KINKED
            chosen[c] = int(fits.argmax())
            new = tried[:, chosen[c]] if chosen[c] < len(bends) else curve[:, 0]
            left += (u[:, c] - new)[:, None] * weight
            u[:, c] = new
    groups = list[tuple[Bend, Tensor]]()
    for k, bend in enumerate(bends):
        channels = torch.tensor([c for c, own in enumerate(chosen) if own == k], device=z.device, dtype=torch.long)
        if len(channels):
            groups.append((bend, channels))
            values[channels] = bend(bins.knots[channels].T, channels).T
    return Curves(bins.knots, values, groups)


def _common(bends: list[Bend], z: Tensor, y: Tensor) -> Bend:
    """The bend of all channels with which they tell most of y: (R, q); a straight line where it does nearly as well.

    The error counts for more where a search would get lost: where channels are unlike a normal distribution (by the
    correlation of the probability plot, Filliben 1975), and where what lies above a value that is taken often, such as
    a ReLU's zero, is torn away from it: half of it is far, compared with its end.
    """
    ranks, (bottom, middle, top) = _usable(_gaussian_ranks(z)), _low(z)

    def cost(bend: Bend) -> float:
        u = _usable(bend(z))
        low = u.gather(0, bottom)
        torn = ((u.gather(0, middle) - low) / (u.gather(0, top) - low)).nan_to_num(0.0, 0.0, 0.0).clamp(0, 1).mean()
        normal = (u * ranks).mean()
        u = torch.cat([u, z.new_ones(len(z), 1)], 1)
        weights = next(ridge_weights((u.T @ u).double(), (u.T @ y).double(), (PENALTY,))).float()
        return float((u @ weights - y).square().mean() * (1 + torn) * (2 - normal))

    costs = [cost(bend) for bend in bends]
    least = min(costs)
    if costs[0] <= NEARLY * least:
        return bends[0]
    chosen = bends[costs.index(least)]
    for _ in range(REFINED):
        tried = [(cost(bend), k, bend) for k, bend in enumerate(chosen.neighbours())]
        if not tried or min(tried, key=lambda t: t[:2])[0] >= least:
            break
        least, _, chosen = min(tried, key=lambda t: t[:2])
    return bends[0] if costs[0] <= NEARLY * least else chosen


def _low(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of each channel's least value, of the middle of those above it, and near their end.

    The first again for the middle where the least value is not taken often. (R, c) -> (1, c) each.
    """
    order, count = z.argsort(0), len(z)
    ties = (z == z.min(0).values).sum(0)
    middle = torch.where(ties > OFTEN * count, (ties + count) // 2, 0).clamp_max(count - 1)
    top = (ties + (END * (count - ties)).long()).clamp_max(count - 1)
    return order[:1], order.gather(0, middle[None]), order.gather(0, top[None])


class Bins:
    """Knots of each channel by rank, and the rows about each. z: (R, c)."""

    def __init__(self, z: Tensor) -> None:
        count = len(z)
        ordered, self.order = z.T.contiguous().sort(1)
        levels = torch.linspace(0.01, 0.99, KNOTS - 6, dtype=torch.float64)
        ends = torch.tensor([0.0, 0.001, 0.003], dtype=torch.float64)
        at = (torch.cat([ends, levels, 1 - ends.flip(0)]) * (count - 1)).round().long().to(z.device)
        self.knots = ordered[:, at].contiguous()
        below, upto = (torch.searchsorted(ordered, self.knots, right=right) for right in (False, True))
        # A value that is taken often is averaged by itself, any other with its neighbours, fewer towards the ends.
        middle = (below + upto) // 2
        near = torch.minimum(middle, count - middle).clamp(min(FEWEST, count), max(FEWEST, count // (2 * KNOTS)))
        own = upto - below > 2 * near
        self.low = torch.where(own, below, (middle - near).clamp_min(0))
        self.high = torch.where(own, upto, (middle + near).clamp_max(count))
        self.ranked = gaussian((below + upto).to(torch.float32) / (2 * count), count)

    def rising(self, channel: int, wanted: Tensor) -> Tensor:
        """Values at the knots of a rising function that follows `wanted` (R,) on average, in units of their spread."""
        sums = torch.cat([wanted.new_zeros(1), wanted[self.order[channel]].cumsum(0)])
        low, high = self.low[channel], self.high[channel]
        mean = (sums[high] - sums[low]) / (high - low).clamp_min(1)
        value = (mean.cummax(0).values + mean.flip(0).cummin(0).values.flip(0)) / 2
        spread, middle = torch.std_mean(value)
        value = torch.where(spread > 0, (value - middle) / spread.clamp_min(1e-30), 0.0)
        return (1 - RANKED) * value + RANKED * self.ranked[channel]


def gaussian(share: Tensor, count: int) -> Tensor:
    """Quantiles of a standard normal at these shares of `count` rows."""
    quantiles: Tensor = torch.special.ndtri(share.clamp(0.5 / count, 1 - 0.5 / count))
    return quantiles


def _gaussian_ranks(z: Tensor) -> Tensor:
    """Each column's ranks as values of a standard normal; equal values have equal ranks. (R, c) -> (R, c)."""
    columns = z.T.contiguous()
    ordered = columns.sort(1).values
    below, upto = (torch.searchsorted(ordered, columns, right=right) for right in (False, True))
    return gaussian((below + upto).to(torch.float32) / (2 * len(z)), len(z)).T


def _principal(parts: Tensor) -> Tensor:
    """The main directions of parts of the image, (R, p) -> (R, at most `TARGETS`), in units of all of it."""
    centred = parts - parts.mean(0)
    axes: Tensor = torch.linalg.eigh(centred.T @ centred)[1][:, -TARGETS:]
    turned = centred @ axes
    return turned / turned.std().clamp_min(1e-30)


def _usable(u: Tensor) -> Tensor:
    """In units of the spread of each column, nothing where it has none or is not finite."""
    u = torch.where(u.isfinite().all(0), u, 0.0)
    spread, mean = torch.std_mean(u, 0)
    return torch.where(spread > 0, (u - mean) / spread.clamp_min(1e-30), 0.0)
