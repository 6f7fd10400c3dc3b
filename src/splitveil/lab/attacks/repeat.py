"""Attacks made of other attacks: the same input sent several times, and the noise averaged away."""

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.attacks.base import Attack
from splitveil.lab.attacks.parts.inner import image_attack
from splitveil.lab.attacks.view import Knows, View


class Averaged(nn.Module):
    """The mean of several calls of a defence that draws noise afresh. z: (N, *cut) -> (N, *cut)."""

    def __init__(self, defense: nn.Module, times: int) -> None:
        super().__init__()
        self.defense, self.times = defense, times

    def forward(self, z: Tensor) -> Tensor:
        return mean_of(lambda: self.defense(z), self.times)

    def laws(self, z: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Mean and standard deviation of what it gives, where the defence can tell its own: see `Defense.laws`."""
        tell = getattr(self.defense, "expected", None)
        told = tell(z) if callable(tell) else None
        return [] if told is None else [(told[0], told[1] / self.times**0.5)]


class Repeat(Attack):
    """Another attack, on the average over the same input sent several times, so that noise fades.

    An attack on the mean of k crossings of the same input, as when a device sends one picture again and again.
    All that the inner attack sees is averaged alike, so that it trains on what it will attack: features of the
    adversary's images and the defence itself are means of k fresh draws. Against a defence that draws nothing this is
    the inner attack, for k copies of one tensor say no more than one.

    Args:
        attack: spec of the inner attack, in square brackets where it has options.
        k: crossings averaged.

    Raises:
        InputError: the inner attack gives no images or repeats by itself, or k is below 1.
    """

    name: ClassVar[str] = "repeat"

    def __init__(self, *, attack: str = "decoder", k: int = 8) -> None:
        inner = image_attack(attack, self.name)
        if inner.crossings > 1:
            raise InputError(f"{self.name} cannot hold {inner.name!r}, which repeats by itself; raise its k instead.")
        if k < 1:
            raise InputError(f"expected k of at least 1, got {k}; use {self.name}:k=8.")
        self.attack, self.k = inner, k
        self.needs, self.crossings = inner.needs, k
        # A mean is linear: whether the scale of z matters is the inner attack's affair alone.
        self.scale_free = inner.scale_free  # type: ignore[misc]

    def shares(self, *, stochastic: bool) -> tuple[str, ...]:
        return () if stochastic and self.k > 1 else super().shares(stochastic=stochastic)

    def run(self, view: View) -> Tensor:
        if not view.stochastic or self.k == 1:
            return self.attack.run(view.within(self.name, view.knows))
        view.record(crossings=float(self.k))
        averaged = view.within(
            self.name,
            view.knows,
            z=view.crossings[: self.k].mean(0),
            observe=lambda index: mean_of(lambda: view.observe(index), self.k),
            query=lambda x: mean_of(lambda: view.query(x), self.k),
            defense=Averaged(view.defense, self.k) if Knows.DEFENSE in view.knows else None,
        )
        return self.attack.run(averaged)


def mean_of(draw: Callable[[], Tensor], times: int) -> Tensor:
    """Mean of several draws, one in memory at a time."""
    total = draw()
    for _ in range(times - 1):
        total = total + draw()
    return total / times
