"""Which cheap number predicts the attack: rank correlation over cuts."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from splitveil.core.records import Correlation, CutNumbers
from splitveil.lab.seeds import generator

ALL_ORDERS = 8
"""Cuts up to which every order is looked at; of more, `DRAWN` random ones."""
DRAWN = 20_000


def correlations(cuts: Sequence[CutNumbers]) -> list[Correlation]:
    """Every number with every attack that all configurations have."""
    if not cuts:
        return []
    attacks = [a for a in cuts[0].errors if all(a in c.errors for c in cuts)]
    names = [number.name for number in cuts[0].numbers]
    found = []
    for name in names:
        values = [next((n.value for n in c.numbers if n.name == name), None) for c in cuts]
        for attack in attacks:
            pairs = [(v, c.errors[attack]) for v, c in zip(values, cuts, strict=True) if v is not None]
            rho, chance = spearman([v for v, _ in pairs], [e for _, e in pairs])
            found.append(Correlation(number=name, attack=attack, rho=rho, chance=chance, cuts=len(pairs)))
    return found


def spearman(a: Sequence[float], b: Sequence[float]) -> tuple[float | None, float | None]:
    """Rank correlation, ties with their mean rank, and how often chance alone does as well.

    Chance is the share of orders of `b` whose correlation is at least as strong in size: of all orders up to
    `ALL_ORDERS` values, else of many random ones. (None, None) below three values or where one side never changes.
    """
    if len(a) < 3:
        return None, None
    first, second = (ranks(torch.tensor(v, dtype=torch.float64)) for v in (a, b))
    if (rho := correlated(first, second)) is None:
        return None, None
    if len(a) <= ALL_ORDERS:
        orders = torch.tensor(list(itertools.permutations(range(len(a)))))
    else:
        draws = generator(0, "orders", len(a))
        orders = torch.rand(DRAWN, len(a), generator=draws).argsort(1)
    first, second = first - first.mean(), second - second.mean()
    by_chance = (second[orders] @ first).abs() / (first.norm() * second.norm())
    return rho, float((by_chance >= abs(rho) - 1e-9).double().mean())


def ranks(values: Tensor) -> Tensor:
    """(N,) -> (N,), from 1; equal values share the mean of their ranks."""
    below = (values[:, None] > values[None]).sum(1)
    equal = (values[:, None] == values[None]).sum(1)
    return below.double() + (equal.double() + 1) / 2


def correlated(a: Tensor, b: Tensor) -> float | None:
    """Pearson's correlation, of ranks Spearman's; None where one side never changes. a, b: (N,)."""
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return max(-1.0, min(1.0, float(a @ b) / size)) if size > 1e-12 else None
