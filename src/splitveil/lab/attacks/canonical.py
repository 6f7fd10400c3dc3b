"""Another attack, on features brought to a form that no lossless change of the channels can alter.

An edge may scale, flip, shift, order, copy or mix its channels, or bend each by a rising function: nothing is lost,
and an attack that takes features in the units in which they come gets less. What an image tells of the channels does
not change, so the form is found from that, on the adversary's own images (`parts.form`). Where the edge's gradients are
not what a step does to its features, a search follows slopes that are (`parts.gradients`).
"""

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.attacks.base import Attack
from splitveil.lab.attacks.parts.form import Form, canonical_form
from splitveil.lab.attacks.parts.gradients import Mended, agreement, lying, too_rough
from splitveil.lab.attacks.parts.inner import image_attack
from splitveil.lab.attacks.parts.likelihood import folded
from splitveil.lab.attacks.view import Knows, Shared, View

FORM, SLOPES, UNDER = "canonical form", "canonical slopes", "canonical: "
"""Keys of what is shared, and what stands before those of the inner attacks."""
TRIED = 8
"""Images set aside on which gradients are looked at."""


class Shaped(nn.Module):
    """A module between features and what comes of them, with a form after or before it."""

    def __init__(self, inner: nn.Module, form: Form, *, after: bool) -> None:
        super().__init__()
        self.inner, self.form, self.after = inner, form, after

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.form(self.inner(z)) if self.after else self.inner(self.form.back(z))
        return out


@dataclass(frozen=True, slots=True)
class Slopes:
    """What is to be mended in edge and defence: widths of secants by call, and whether bf16 is too coarse.

    agreement: of the gradients, mended, with what steps do; see `parts.gradients`. None where nobody looked.
    """

    edge: dict[int, float]
    defense: dict[int, float]
    exact: bool
    agreement: float | None = None


class Canonical(Attack):
    """Another attack, on features in a form that scaling, mixing or bending channels does not change.

    All that the inner attack sees is brought to that form alike: private features, those of its own images, what
    queries and the defence give. The cloud half is given features again. Nets that the inner attacks train are shared
    among all that stand in this one. Against a defence that draws noise, whose law says in which units to count, and
    where images of its own may not be queried, the features stay as they come.

    Args:
        attack: spec of the inner attack, in square brackets where it has options.

    Raises:
        InputError: the inner attack gives no images, or is such a one itself.
    """

    name: ClassVar[str] = "canonical"
    scale_free: ClassVar[bool] = True

    def __init__(self, *, attack: str = "decoder") -> None:
        inner = image_attack(attack, self.name)
        if isinstance(inner, Canonical):
            raise InputError(
                f"expected canonical to hold another attack, got {attack!r}; use canonical:attack=decoder."
            )
        self.attack = inner
        self.needs, self.crossings = inner.needs, inner.crossings

    def shares(self, *, stochastic: bool) -> tuple[str, ...]:
        own = super().shares(stochastic=stochastic)
        slopes = (SLOPES,) if Knows.WEIGHTS in self.needs else ()
        return (*slopes, *own) if stochastic else (FORM, *slopes, *(f"{UNDER}{key}" for key in own))

    def run(self, view: View) -> Tensor:
        formed = not view.stochastic and Knows.AUX | Knows.QUERIES in view.knows
        form = view.once(FORM, lambda seed, _: canonical_form(view.observe, view.aux, seed)) if formed else None
        view.record(**({} if form is None else form.told))
        slopes = self._slopes(view, form) if Knows.WEIGHTS in self.needs else None
        edge = defense = None
        if slopes is not None and slopes.agreement is not None:
            view.record(mended=float(len(slopes.edge) + len(slopes.defense)), slope=slopes.agreement)
        if slopes is not None and (slopes.edge or slopes.exact):
            edge = Mended(folded(view.edge), slopes.edge, exact=slopes.exact)
        if slopes is not None and slopes.defense:
            defense = Mended(view.defense, slopes.defense, exact=slopes.exact)
        if form is None:
            return self.attack.run(view.within(self.name, view.knows, edge=edge, defense=defense, shared=view.shared))
        return self.attack.run(self._shaped(view, form, edge, defense))

    def _shaped(self, view: View, form: Form, edge: nn.Module | None, defense: nn.Module | None) -> View:
        """The view that the inner attack gets."""
        knows = view.knows
        if Knows.DEFENSE in knows:
            defense = Shaped(view.defense if defense is None else defense, form, after=True)

        def shaped(z: Tensor) -> Tensor:
            with torch.no_grad():
                return torch.cat([form(part) for part in z.split(256)])

        made = view.within(
            self.name, knows, z=shaped(view.z),
            observe=lambda index: shaped(view.observe(index)), query=lambda x: shaped(view.query(x)),
            edge=edge, defense=defense, shared=Under(view.shared),
            cloud=Shaped(view.cloud, form, after=False) if Knows.CLOUD in knows else None,
        )  # fmt: skip
        made.foreign = frozenset(key.removeprefix(UNDER) for key in view.foreign if key.startswith(UNDER))
        return made

    def _slopes(self, view: View, form: Form | None) -> Slopes:
        """What is to be mended; nothing where it has no images to try."""
        if Knows.AUX not in view.knows:
            return Slopes({}, {}, exact=False)

        def look(seed: int, _: Path | None) -> Slopes:
            x = view.aux.images(view.aux.held_out[:TRIED])
            edge = folded(view.edge)
            with torch.no_grad():
                h = edge(x)
            inner, outer = lying(edge, x), {} if view.stochastic else lying(view.defense, h)
            shape: Callable[[Tensor], Tensor] = (lambda z: z) if form is None else form
            first, second = Mended(edge, inner), Mended(view.defense, outer)
            torch.manual_seed(seed)
            exact = too_rough(lambda x: shape(second(first(x))), x)
            told = None if view.stochastic else agreement(lambda x: shape(second(first(x))), x)
            return Slopes(inner, outer, exact, told)

        return view.once(SLOPES, look)


class Under(Shared):
    """A store within another one, under keys of its own."""

    def __init__(self, outer: Shared) -> None:
        super().__init__(outer.seed, outer.workdir / "canonical" if outer.workdir else None)
        self.made = Prefixed(outer.made)  # type: ignore[assignment]


class Prefixed(MutableMapping[str, object]):
    """Those entries of a dictionary whose keys begin with `UNDER`, without it."""

    def __init__(self, outer: dict[str, object]) -> None:
        self.outer = outer

    def __getitem__(self, key: str) -> object:
        return self.outer[UNDER + key]

    def __setitem__(self, key: str, value: object) -> None:
        self.outer[UNDER + key] = value

    def __delitem__(self, key: str) -> None:
        del self.outer[UNDER + key]

    def __iter__(self) -> Iterator[str]:
        return (key.removeprefix(UNDER) for key in self.outer if key.startswith(UNDER))

    def __len__(self) -> int:
        return sum(1 for _ in self)
