"""Maps of features that lose nothing, drawn from a seed: what an audit says must not depend on them.

Each has an inverse; `loss` says how much that leaves missing in 32-bit floats, relative to the features' spread.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]
WIDEST, SHIFT = 3.0, 5.0
"""Decades of factors on either side of 1; offsets at most, in spreads."""
EXACT = 1e-4
"""Most that the inverse may leave missing, in spreads of the features."""


class Pointwise(nn.Module):
    """A function of features as a module. z: (N, *cut) -> (N, *cut) or other channels."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z)


@dataclass(frozen=True, slots=True)
class Lossless:
    """A map and its inverse.

    Attributes:
        family: what it is called in tables; `FAMILIES` has all.
        text: with its numbers.
        there: features -> what is sent.
        back: the inverse.
    """

    family: str
    text: str
    there: Function
    back: Function

    def loss(self, z: Tensor) -> float:
        """Root mean square of what is missing after there and back, in spreads of z."""
        return float((self.back(self.there(z)) - z).square().mean().sqrt() / z.std())

    def edge(self, inner: nn.Module) -> nn.Module:
        """The edge half with the map after it."""
        return nn.Sequential(inner, Pointwise(self.there))

    def cloud(self, inner: nn.Module) -> nn.Module:
        """The cloud half with the inverse before it."""
        return nn.Sequential(Pointwise(self.back), inner)


def draw(family: str, z: Tensor, seed: int) -> Lossless:
    """A map of the family for features like z: (n, C, H, W), fresh for each seed."""
    draws = torch.Generator().manual_seed(seed)
    text, there, back = FAMILIES[family](z, draws)
    return Lossless(family, text, there, back)


Drawn = tuple[str, Function, Function]
Family = Callable[[Tensor, torch.Generator], Drawn]


def _uniform(low: float, high: float, draws: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=draws))


def _scaled(shape: tuple[int, ...], draws: torch.Generator) -> tuple[Function, Function]:
    factor = 10 ** (WIDEST * (2 * torch.rand(shape, generator=draws) - 1))
    return lambda z: z * factor, lambda z: z / factor


def channel_factors(z: Tensor, draws: torch.Generator) -> Drawn:
    return "1e-3 to 1e3 a channel", *_scaled((z.shape[1], 1, 1), draws)


def feature_factors(z: Tensor, draws: torch.Generator) -> Drawn:
    return "1e-3 to 1e3 a feature", *_scaled(tuple(z.shape[1:]), draws)


def signs(z: Tensor, draws: torch.Generator) -> Drawn:
    sign = 2.0 * torch.randint(0, 2, (z.shape[1], 1, 1), generator=draws) - 1
    return "of channels", lambda z: z * sign, lambda z: z * sign


def affine(z: Tensor, draws: torch.Generator) -> Drawn:
    unit = z.std()
    shift = SHIFT * unit * (2 * torch.rand(z.shape[1], 1, 1, generator=draws) - 1)
    factor = 0.2 + 2 * torch.rand(z.shape[1], 1, 1, generator=draws)
    return "a channel", lambda z: z * factor + shift, lambda z: (z - shift) / factor


def channel_order(z: Tensor, draws: torch.Generator) -> Drawn:
    order = torch.randperm(z.shape[1], generator=draws)
    return "of channels", lambda z: z[:, order], lambda z: z[:, order.argsort()]


def feature_order(z: Tensor, draws: torch.Generator) -> Drawn:
    order = torch.randperm(math.prod(z.shape[1:]), generator=draws)

    def moved(index: Tensor) -> Function:
        return lambda z: z.flatten(1)[:, index].reshape(z.shape)

    return "of all features", moved(order), moved(order.argsort())


def _mixed(matrix: Tensor) -> tuple[Function, Function]:
    back = torch.linalg.inv(matrix)

    def by(m: Tensor) -> Function:
        return lambda z: torch.einsum("dc,nchw->ndhw", m.to(z.dtype), z)

    # The inverse is taken in float64, as whoever unmixes would: what float32 lost on the way is lost.
    there, double = by(matrix.float()), by(back)
    return there, lambda z: double(z.double()).float()


def rotation(z: Tensor, draws: torch.Generator) -> Drawn:
    return "1x1, orthogonal", *_mixed(_orthogonal(z.shape[1], draws))


def mixing(z: Tensor, draws: torch.Generator) -> Drawn:
    size, power = z.shape[1], _uniform(0.5, 3.0, draws)
    return f"1x1, condition {10**power:.0f}", *_mixed(_conditioned(size, power, draws))


def ill_mixing(z: Tensor, draws: torch.Generator) -> Drawn:
    size, power = z.shape[1], _uniform(3.0, 4.0, draws)
    return f"1x1, condition {10**power:.0f}", *_mixed(_conditioned(size, power, draws))


def _orthogonal(size: int, draws: torch.Generator) -> Tensor:
    basis: Tensor = torch.linalg.qr(torch.randn(size, size, generator=draws, dtype=torch.float64))[0]
    return basis


def _conditioned(size: int, power: float, draws: torch.Generator) -> Tensor:
    levels = 10 ** torch.linspace(0, -power, size, dtype=torch.float64)
    return _orthogonal(size, draws) * levels @ _orthogonal(size, draws)


def exponential(z: Tensor, draws: torch.Generator) -> Drawn:
    rate = _uniform(0.5, 2.0, draws) / float(z.std())
    return f"exp, {rate * float(z.std()):.2f} a spread", lambda z: torch.exp(rate * z), lambda z: torch.log(z) / rate


def logarithm(z: Tensor, draws: torch.Generator) -> Drawn:
    rate = _uniform(0.5, 3.0, draws) / float(z.std())
    return (
        "sign(h) log(1 + |h|)", lambda z: z.sign() * torch.log1p(rate * z.abs()),
        lambda z: z.sign() * torch.expm1(z.abs()) / rate,
    )  # fmt: skip


def hyperbolic(z: Tensor, draws: torch.Generator) -> Drawn:
    rate = _uniform(0.5, 2.0, draws) / float(z.std())
    return "sinh", lambda z: torch.sinh(rate * z), lambda z: torch.asinh(z) / rate


def odd_power(z: Tensor, draws: torch.Generator) -> Drawn:
    power, unit = (3, 5)[int(torch.randint(0, 2, (), generator=draws))], z.std()
    return (
        f"power {power}", lambda z: (z / unit) ** power, lambda z: unit * z.sign() * z.abs() ** (1 / power),
    )  # fmt: skip


def padding(z: Tensor, draws: torch.Generator) -> Drawn:
    count, level = z.shape[1], 10 * float(z.std())
    return (
        "zeros and a loud constant",
        lambda z: torch.cat([z, torch.zeros_like(z[:, : count // 2]), torch.full_like(z[:, :2], level)], 1),
        lambda z: z[:, :count],
    )


def copies(z: Tensor, draws: torch.Generator) -> Drawn:
    count = z.shape[1]
    index = torch.randint(0, count, (max(1, count // 2),), generator=draws)
    return "of half the channels", lambda z: torch.cat([z, z[:, index]], 1), lambda z: z[:, :count]


def idle_stream(z: Tensor, draws: torch.Generator) -> Drawn:
    count, unit = z.shape[1], z.std()
    pick = torch.randint(0, count, (max(1, count // 2),), generator=draws)
    wave = _uniform(300, 3000, draws)
    return (
        "as many loud channels that mean nothing",
        lambda z: torch.cat([z, 10 * unit * torch.sin(wave * z[:, pick] / unit)], 1),
        lambda z: z[:, :count],
    )


def decoy(z: Tensor, draws: torch.Generator) -> Drawn:
    """What spoils a gradient and no value: fine rounding, a quick wave of no height, a gradient cut off or turned."""
    unit, kind = z.std(), int(torch.randint(0, 4, (), generator=draws))
    wave = _uniform(3e4, 3e5, draws)
    text, there = (
        ("fine rounding", lambda z: torch.round(z * (2**14 / unit)) * (unit / 2**14)),
        ("a quick wave", lambda z: z + 5e-5 * unit * torch.sin(wave * z / unit)),
        ("detached", lambda z: z.detach() + 1e-5 * z),
        ("turned gradient", _Turned.apply),
    )[kind]
    return text, there, lambda z: z


class _Turned(torch.autograd.Function):
    """The identity, with a gradient that leads the wrong way."""

    @staticmethod
    def forward(ctx: object, z: Tensor) -> Tensor:
        return z.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return -grad


FAMILIES: dict[str, Family] = {
    "factors of channels": channel_factors,
    "factors of features": feature_factors,
    "signs": signs,
    "shifts": affine,
    "order of channels": channel_order,
    "order of features": feature_order,
    "rotation": rotation,
    "mixing to 1e3": mixing,
    "mixing to 1e4": ill_mixing,
    "exp": exponential,
    "log": logarithm,
    "sinh": hyperbolic,
    "odd powers": odd_power,
    "padding": padding,
    "copies": copies,
    "idle stream": idle_stream,
    "decoys": decoy,
}
NEVER_FLAGGED = (
    "factors of channels", "factors of features", "signs", "shifts", "order of channels", "order of features",
    "rotation", "mixing to 1e3", "exp",
)  # fmt: skip
"""Families of which no map may even end in a flag."""
