"""`Form`: features brought to a form that is the same whatever lossless map of the channels was applied to them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from splitveil.lab.attacks.parts.curves import Curves, informative_curves
from splitveil.lab.attacks.parts.places import (
    Places,
    in_maps,
    in_rows,
    parts_of,
    places_of,
    told_by_image,
)
from splitveil.lab.attacks.parts.unmixing import Basis, standard, unmixed
from splitveil.lab.attacks.view import Aux

WIDEST = 1024
"""Channels that are mixed at most."""
GAIN_DB = 0.05
"""By so much must bent features tell more than those that are not."""
SINGLE_DB = 0.5
"""The same for units of single features."""
UNEVEN = 1.0
"""Spread, within a channel, of the logarithm of its features' spreads from which on each may need units of its own."""
ROUNDING = 1e-5
LOOKED_AT = 512
"""Images from which the spreads of single features are taken."""

Read = Callable[[Tensor], Tensor]


class Form(nn.Module):
    """Units of single features where they need them, then steps on channels, all in float32.

    z: (N, *cut) -> (N, *cut), perhaps with fewer channels.

    Args:
        steps: on channels last.
        single: shift and scale of each feature, (1, *cut), or None.
    """

    def __init__(self, *steps: Curves | Basis, single: "Single | None" = None) -> None:
        super().__init__()
        self.steps, self.single = nn.ModuleList(steps), single
        self.inverses = nn.ModuleList(step.inverse() for step in reversed(steps))

    def forward(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            rows = in_rows(z if self.single is None else self.single(z))
            for step in self.steps:
                rows = step(rows)
            return in_maps(rows)

    def back(self, u: Tensor) -> Tensor:
        """From this form to features again."""
        with torch.autocast(u.device.type, enabled=False):
            rows = in_rows(u.float())
            for inverse in self.inverses:
                rows = inverse(rows)
            z = in_maps(rows)
            return z if self.single is None else self.single.back(z)

    @property
    def told(self) -> dict[str, float]:
        """What it is made of, for the evidence of a row: 1 for each part that it has."""
        own = {type(step) for step in self.steps}
        return {"curved": float(Curves in own), "single": float(self.single is not None)}


class Single(nn.Module):
    """Each feature in units of its own spread, relative to how much images differ about its place.

    A convolution's features vary less where images do, and must not be blown up there.

    Args:
        z: (n, *cut).
        x: (n, C, H, W), the images.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, z: Tensor, x: Tensor) -> None:
        super().__init__()
        spread, shift = torch.std_mean(z, 0, keepdim=True)
        seen = parts_of(x - x.mean(0), tuple(z.shape[1:])).square().mean((0, 2)).sqrt()
        usual = in_maps(seen.reshape(*in_rows(z[:1]).shape[:-1], 1)) if z.ndim > 2 else seen.reshape(1, 1)
        # What only rounding moves is taken not to move.
        alive = spread > ROUNDING * (shift.abs() + spread)
        self.register_buffer("shift", shift)
        self.register_buffer("scale", torch.where(alive, usual / spread.clamp_min(1e-30), 0.0))

    def forward(self, z: Tensor) -> Tensor:
        return (z - self.shift) * self.scale

    def back(self, z: Tensor) -> Tensor:
        """The inverse; what never changes has its one value."""
        return torch.where(self.scale > 0, z / self.scale.clamp_min(1e-30), 0.0) + self.shift


def canonical_form(read: Read, aux: Aux, seed: int) -> Form:
    """The form of these features: bent where an image then is more linear in them, and unmixed.

    read: index (n,) -> features (n, *cut).
    """
    with torch.no_grad():
        index = torch.arange(min(len(aux) - len(aux.held_out), LOOKED_AT))
        z, x = read(index), aux.images(index)
        found, best = Form(), -math.inf
        for single in (None, Single(z, x)) if uneven(z) else (None,):
            mean = 0.0 if single is None else x.mean(0)
            places = places_of(read if single is None else _of(single, read), aux, seed, mean)
            curves = informative_curves(places)
            curved = places._replace(z=curves(places.z))
            plain, bent = told_db(places), told_db(curved)
            straight = bent <= plain + GAIN_DB
            if max(plain, bent) > best + (SINGLE_DB if single is not None else 0):
                best = max(plain, bent)
                basis = (unmixed if places.z.shape[1] <= WIDEST else standard)(places if straight else curved)
                found = Form(*(() if straight else (curves,)), basis, single=single)
        return found


def _of(single: "Single", read: Read) -> Read:
    return lambda index: single(read(index))


def uneven(z: Tensor) -> bool:
    """Whether features of one channel differ in their spread or place as no convolution makes them. z: (N, *cut)."""
    rows = in_rows(z).flatten(1, -2) if z.ndim > 2 else z[:, None]
    if rows.shape[1] == 1:
        return False
    spread = (rows - rows.mean(0)).abs().mean(0)
    log = torch.where(spread > 0, spread.clamp_min(1e-30).log(), torch.nan)
    middle = log.nanmean(0)
    return bool((log - middle).square().nanmean(0).sqrt().nanmedian() > UNEVEN)


def told_db(places: Places) -> float:
    """How well the features tell the image about their place, by ridge regression: in dB, on images set aside."""
    z, parts = _standard(places.z), places.parts
    told = told_by_image(Places(parts, z, places.aside), parts)
    missed = (told - parts)[places.aside :].square().mean()
    return float(-10 * torch.log10(missed.clamp_min(1e-30)))


def _standard(z: Tensor) -> Tensor:
    spread, mean = torch.std_mean(z, 0)
    return torch.where(spread > 0, (z - mean) / spread.clamp_min(1e-30), 0.0)
