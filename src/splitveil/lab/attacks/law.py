"""Attacks that go by the exact law of a defence: which numbers crossed as they are, and what missing ones tell."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from splitveil.lab.attacks.repeat import Averaged, Repeat, mean_of
from splitveil.lab.attacks.view import Knows, View
from splitveil.lab.law import Law

CHUNK = 128
"""Images whose crossings lie in memory together."""


class Together(nn.Module):
    """Several calls of a random defence, put together by its law. z: (N, *h) -> (N, *cut)."""

    def __init__(self, defense: nn.Module, law: Law, times: int) -> None:
        super().__init__()
        self.defense, self.law, self.times = defense, law, times

    def forward(self, z: Tensor) -> Tensor:
        return drawn(self.law, self.defense, z, self.times)


class ByLaw(Repeat):
    """Another attack, told exactly what the defence and the codec do to features, on one crossing or on several.

    A search through the edge then asks for what the law says: numbers that cross as they are count as exact and
    missing ones by what they tell (`dropout`, `disco`, `top_k`), a rounded number fits everywhere within its cell, and
    noise counts by its own distribution. Of several crossings of the same input the law says how to put them together:
    by the mean for Gaussian noise, by what is there for features that are dropped, by the median for Laplace noise.
    What the inner attack learns from its own images went through the same. Where a defence tells no law, this is
    ``repeat``; where there is nothing to know and one crossing, it is the inner attack.

    Args:
        attack: spec of the inner attack, in square brackets where it has options.
        k: crossings of the same input.

    Raises:
        InputError: the inner attack gives no images or repeats by itself, or k is below 1.
    """

    name: ClassVar[str] = "law"

    def __init__(self, *, attack: str = "mle", k: int = 1) -> None:
        super().__init__(attack=attack, k=k)

    def run(self, view: View) -> Tensor:
        times = self.k if view.stochastic else 1
        if times > 1:
            view.record(crossings=float(times))
        law = known_law(view, times)
        if times == 1 and (law is None or not law.rewrites):
            inner = view.within(self.name, view.knows)
            inner.law = law
            return self.attack.run(inner)

        return self.attack.run(self._together(view, law, times))

    def _together(self, view: View, law: Law | None, times: int) -> View:
        """The view in which several crossings are one."""
        defense = view.defense if Knows.DEFENSE in view.knows else None
        if law is None:
            return view.within(
                self.name,
                view.knows,
                z=view.crossings[:times].mean(0),
                observe=lambda index: mean_of(lambda: view.observe(index), times),
                query=lambda x: mean_of(lambda: view.query(x), times),
                defense=None if defense is None else Averaged(defense, times),
            )

        def observe(index: Tensor) -> Tensor:
            return torch.cat([drawn(law, view.observe, part, times) for part in index.split(CHUNK)])

        def query(x: Tensor) -> Tensor:
            return torch.cat([drawn(law, view.query, part, times) for part in x.split(CHUNK)])

        made = view.within(
            self.name, view.knows, z=law.combined(view.crossings[:times]), observe=observe, query=query,
            defense=None if defense is None else Together(defense, law, times),
        )  # fmt: skip
        made.law = law
        return made


def known_law(view: View, times: int) -> Law | None:
    """The law that the view's defence and codec follow, as far as the adversary may know; None where it cannot."""
    if Knows.DEFENSE not in view.knows or view.edge_draws:
        return None
    tell = getattr(view.defense, "law", None)
    if not callable(tell):
        return None
    like = torch.zeros_like(view.z[:1])
    if Knows.WEIGHTS in view.knows:
        with torch.no_grad():
            like = view.edge(torch.zeros(1, *view.image_shape, device=view.z.device))
    found: Law | None = tell(like, view.codec, times)
    return found


def drawn(law: Law, draw: Callable[[Tensor], Tensor], what: Tensor, times: int) -> Tensor:
    """What the law makes of several draws. what: (n, ...) that `draw` takes -> (n, *cut)."""
    return law.combined(torch.stack([draw(what) for _ in range(times)]))
