"""`Form`: features brought to a form that is the same whatever lossless map of the channels was applied to them."""

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
SINGLE_DB = 0.1
"""The same for units of single features that come before a bend."""
ROUNDING = 1e-5
LOOKED_AT = 512
"""Images from which the spreads of single features are taken."""

Read = Callable[[Tensor], Tensor]


class Form(nn.Module):
    """Steps on features, one after another, in float32. z: (N, *cut) -> (N, *cut), perhaps with fewer channels.

    Args:
        steps: `Single` on features as they are, the others on channels last.
    """

    def __init__(self, *steps: "Curves | Basis | Single") -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.inverses = nn.ModuleList(step.inverse() for step in reversed(steps))

    def forward(self, z: Tensor) -> Tensor:
        return _through(self.steps, z)

    def back(self, u: Tensor) -> Tensor:
        """From this form to features again."""
        return _through(self.inverses, u)

    @property
    def told(self) -> dict[str, float]:
        """What it is made of, for the evidence of a row: whether channels are bent, whether only in their own units."""
        kinds = [type(step) for step in self.steps]
        return {"curved": float(Curves in kinds), "single": float(bool(kinds) and kinds[0] is Single)}


def _through(steps: nn.ModuleList, z: Tensor) -> Tensor:
    with torch.autocast(z.device.type, enabled=False):
        z = z.float()
        for step in steps:
            z = step(z) if isinstance(step, Single) else in_maps(step(in_rows(z)))
        return z


class Single(nn.Module):
    """A shift and a factor for each feature. z: (N, *cut) -> (N, *cut).

    Args:
        factor: (1, *cut).
        offset: (1, *cut), added last.
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, factor: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor)
        self.register_buffer("offset", offset)

    @classmethod
    def of(cls, z: Tensor, x: Tensor) -> "Single":
        """Units of each feature's own spread, relative to how much images differ about its place.

        A convolution's features vary less where images do, and must not be blown up there. z: (n, *cut); x: (n, C, H,
        W), the images.
        """
        spread, shift = torch.std_mean(z, 0, keepdim=True)
        seen = parts_of(x - x.mean(0), tuple(z.shape[1:])).square().mean((0, 2)).sqrt()
        usual = in_maps(seen.reshape(*in_rows(z[:1]).shape[:-1], 1)) if z.ndim > 2 else seen.reshape(1, 1)
        # What only rounding moves is taken not to move.
        alive = spread > ROUNDING * (shift.abs() + spread)
        factor = torch.where(alive, usual / spread.clamp_min(1e-30), 0.0)
        return cls(factor, -shift * factor)

    def forward(self, z: Tensor) -> Tensor:
        return z * self.factor + self.offset

    def inverse(self) -> "Single":
        """Back; what never changes is 0."""
        factor = torch.where(self.factor > 0, 1 / self.factor.clamp_min(1e-30), 0.0)
        return Single(factor, -self.offset * factor)


def canonical_form(read: Read, aux: Aux, seed: int) -> Form:
    """The form of these features: bent where an image then is more linear in them, in units of their own, and unmixed.

    A function of channels is undone before each feature gets units of its own, a factor a feature after; which of the
    two orders it is, is what tells most of the image. read: index (n,) -> features (n, *cut).
    """
    with torch.no_grad():
        index = torch.arange(min(len(aux) - len(aux.held_out), LOOKED_AT))
        z, x = read(index), aux.images(index)
        found, best = list[tuple[Curves | Basis | Single, ...]](), list[float]()
        for own in (False, True):
            steps: tuple[Curves | Basis | Single, ...] = (Single.of(z, x),) if own else ()
            places = _seen(steps, read, aux, seed, x.mean(0) if own else None)
            # Units of single features pull a ReLU's zero apart; a bend then fits the places and not the channel.
            curves = None if own else informative_curves(places)
            if curves is not None and told_db(places._replace(z=curves(places.z))) > told_db(places) + GAIN_DB:
                steps = (*steps, curves)
            value = told_db(_seen((*steps, _centred(Form(*steps)(z))), read, aux, seed, x.mean(0)))
            if not best or value > best[0] + SINGLE_DB:
                found, best = [steps], [value]
        steps, mean = found[0], x.mean(0)
        mix = unmixed if z.shape[-1 if z.ndim <= 3 else 1] <= WIDEST else standard
        own = bool(steps) and isinstance(steps[0], Single)
        steps = (*steps, mix(_seen(steps, read, aux, seed, mean if own else None)))
        steps = (*steps, Single.of(Form(*steps)(z), x))
        return Form(*steps, standard(_seen(steps, read, aux, seed, mean)))


def _centred(z: Tensor) -> Single:
    """Less each feature's mean, as what they tell is of images less theirs."""
    return Single(torch.ones_like(z[:1]), -z.mean(0, keepdim=True))


def _seen(steps: "tuple[Curves | Basis | Single, ...]", read: Read, aux: Aux, seed: int, mean: Tensor | None) -> Places:
    """Places of features after some steps."""
    form = Form(*steps)
    return places_of(lambda index: form(read(index)), aux, seed, 0.0 if mean is None else mean)


def told_db(places: Places) -> float:
    """How well the features tell the image about their place, by ridge regression: in dB, on images set aside."""
    z, parts = _standard(places.z), places.parts
    told = told_by_image(Places(parts, z, places.aside), parts)
    missed = (told - parts)[places.aside :].square().mean()
    return float(-10 * torch.log10(missed.clamp_min(1e-30)))


def _standard(z: Tensor) -> Tensor:
    spread, mean = torch.std_mean(z, 0)
    return torch.where(spread > 0, (z - mean) / spread.clamp_min(1e-30), 0.0)
