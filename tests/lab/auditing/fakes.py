"""Attacks that take no time and behave in one known way."""

import pytest
import torch
from torch import Tensor

from splitveil.core.registry import Value
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack, LabelAttack
from splitveil.lab.attacks.floors import NearestAux
from splitveil.lab.attacks.view import Knows, View


class Grey(Attack):
    """One grey; counts its runs."""

    name = "grey"
    needs = Knows.AUX
    scale_free = True
    runs = 0

    def __init__(self, *, level: float = 0.5) -> None:
        self.level = level

    def run(self, view: View) -> Tensor:
        Grey.runs += 1
        return torch.full((len(view.z), *view.image_shape), self.level)

    def options(self) -> dict[str, Value]:
        return {"level": self.level}


class Told(Grey):
    """The mean image, with evidence of its own."""

    name = "told"
    needs = Knows.AUX | Knows.WEIGHTS

    def __init__(self, *, draws: float = 4, gradient: float = 0, gain: float | str = 0, gap: float = 0) -> None:
        super().__init__()
        self.evidence = {"draws": draws, "gradient": gradient, "gain": float(gain), "gap": gap}

    def run(self, view: View) -> Tensor:
        view.record(**self.evidence)
        return view.aux.images().mean(0).expand(len(view.z), -1, -1, -1)

    def options(self) -> dict[str, Value]:
        return dict(self.evidence)


class Reading(Told):
    """The mean image, after reading the features of its own images so many times."""

    name = "reading"
    needs = Knows.AUX | Knows.QUERIES

    def __init__(self, *, times: int = 1) -> None:
        super().__init__()
        self.times = times

    def run(self, view: View) -> Tensor:
        for _ in range(self.times):
            view.observe(torch.arange(len(view.aux)))
        return view.aux.images().mean(0).expand(len(view.z), -1, -1, -1)

    def options(self) -> dict[str, Value]:
        return {"times": self.times}


class Literal(Attack):
    """Takes the size of the features at its word."""

    name = "literal"
    needs = Knows.AUX

    def run(self, view: View) -> Tensor:
        mean = view.aux.images().mean(0)
        return mean + 0.2 * view.z.flatten(1).std(1).reshape(-1, 1, 1, 1)


class Averaging(Attack):
    """Keeps how far repeated crossings lie apart."""

    name = "averaging"
    needs = Knows.NOTHING
    crossings = 3
    scale_free = True
    seen: list[Tensor] = []  # noqa: RUF012

    def run(self, view: View) -> Tensor:
        Averaging.seen.append(view.crossings)
        return torch.zeros(len(view.z), *view.image_shape)


class Broken(Grey):
    """Diverges."""

    name = "broken"

    def run(self, view: View) -> Tensor:
        return torch.full((len(view.z), *view.image_shape), torch.nan)


class Negative(Grey):
    """The nearest of the adversary's images, dark for light: all is told, in a way that no judge of images knows."""

    name = "negative"
    needs = Knows.AUX | Knows.QUERIES

    def run(self, view: View) -> Tensor:
        return 1 - NearestAux().run(view)


class Centroid(LabelAttack):
    """The class whose mean features are nearest."""

    name = "centroid"
    needs = Knows.AUX | Knows.QUERIES
    scale_free = True

    def run(self, view: View, labels: Tensor, classes: int) -> Tensor:
        own = view.observe(torch.arange(len(labels))).flatten(1)
        view.observe(torch.arange(len(labels)))
        means = torch.stack([own[labels == k].mean(0).nan_to_num(nan=1e6) for k in range(classes)])
        return -torch.cdist(view.z.flatten(1), means)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attacks above under their names."""
    for kind in (Grey, Told, Reading, Literal, Averaging, Broken, Negative, Centroid):
        monkeypatch.setitem(ATTACKS._table, kind.name, f"{__name__}:{kind.__name__}")
    monkeypatch.setattr(Grey, "runs", 0)
    monkeypatch.setattr(Averaging, "seen", [])
