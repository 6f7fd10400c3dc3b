from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.core.records import Criterion, Number
from splitveil.lab.auditing import audit
from splitveil.lab.auditing.configuration import Configuration
from splitveil.lab.auditing.criterion import criterion, measure
from splitveil.lab.auditing.criterion.material import Material
from splitveil.lab.auditing.criterion.numbers import FAMILIES
from splitveil.lab.auditing.subject import Subject, undefended
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.auditing.views import Times
from splitveil.lab.cut import Split
from splitveil.lab.data import Dataset

from ..conftest import Trained

CUTS = ("relu1", "relu2", "relu3")


class Permuted(nn.Module):
    """Channels in another order after a module, or back in order before it."""

    def __init__(self, inner: nn.Module, order: Tensor, *, after: bool) -> None:
        super().__init__()
        self.inner, self.order, self.after = inner, order, after

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)[:, self.order] if self.after else self.inner(x[:, self.order.argsort()])
        return out


def material(trained: Trained, edge: nn.Module | None = None, cloud: nn.Module | None = None) -> Material:
    own = trained.subject("relu2").configurations[0]
    split = Split(edge or own.split.edge, cloud or own.split.cloud, own.cut)
    c = Configuration(own.cut, undefended(split))
    x = torch.from_numpy(trained.data.test.x).float() / 255
    with torch.no_grad():
        z = c.split.edge(x)
        logits = c.split.cloud(z)
    return Material(c, x, z, torch.from_numpy(trained.data.test.y), logits, logits, 10, 0)


def numbers(m: Material) -> dict[str, Number]:
    return {n.name: n for family in FAMILIES.values() for n in family(m)}


@pytest.fixture(scope="module")
def found(trained: Trained) -> Criterion:
    subject = trained.subject(*CUTS)
    card = audit(subject, trained.data, suite=custom_suite(["linear"]), n=40, samples=0).card
    return criterion(subject, trained.data, card)


def test_every_cut_has_every_number_with_its_correlation(found: Criterion) -> None:
    names = [n.name for n in found.cuts[0].numbers]
    assert [c.cut for c in found.cuts] == list(CUTS)
    assert all([n.name for n in c.numbers] == names for c in found.cuts)
    assert {(c.number, c.attack) for c in found.correlations} == {
        (n, a) for n in names for a in ("linear", "strongest")
    }
    assert found.cuts[0].errors["linear"] == found.cuts[0].errors["strongest"]
    assert {n.family for n in found.cuts[0].numbers} == set(FAMILIES)
    assert Criterion.from_json(found.to_json()) == found


def test_information_and_dependence_are_calibrated(found: Criterion) -> None:
    for c in found.cuts:
        for n in c.numbers:
            assert n.value is None or np.isfinite(n.value), n.name
            if n.family == "information":
                assert {"I(x;x)", "I(x;label)", "I(x;shuffled z)"} == set(n.calibration)
                assert n.calibration["I(x;x)"] > n.calibration["I(x;label)"] - 0.5
                assert n.calibration["I(x;shuffled z)"] < max(1.0, n.value or 0.0)
                assert n.samples > 0
            if n.family == "dependence":
                assert abs(n.calibration["shuffled"]) < 0.15
                assert n.value is not None
                assert n.value > n.calibration["shuffled"]


@pytest.mark.long
def test_a_deterministic_edge_has_no_certificate_and_a_noisy_one_has(trained: Trained, found: Criterion) -> None:
    floor = next(n for n in found.cuts[0].numbers if n.name == "dFIL floor")
    assert floor.value is None
    assert "no certificate: nothing random leaves the device" in floor.note
    subject = Subject.of_split(trained.protected("relu2", "noise:sigma=1.0", "raw"), model="small", weights="test")
    subject = replace(subject, configurations=subject.configurations[-1:])
    bare, (noisy,) = found.cuts[CUTS.index("relu2")], criterion(subject, trained.data).cuts
    floor = next(n for n in noisy.numbers if n.name == "dFIL floor")
    assert floor.value is not None
    assert floor.value > 0
    accuracy = [next(k.value for k in c.costs if k.name == "accuracy") for c in (bare, noisy)]
    assert accuracy[0] >= accuracy[1]
    assert noisy.errors == {}


def test_what_is_kept_is_not_measured_again(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = trained.subject("relu3")
    monkeypatch.setattr(measure, "FAMILIES", dict(list(FAMILIES.items())[-1:]))
    first = criterion(subject, trained.data, out=tmp_path)
    monkeypatch.setattr(measure, "FAMILIES", {})
    again = criterion(subject, trained.data, out=tmp_path)
    assert again.cuts == first.cuts
    with pytest.raises(InputError, match="holds another audit"):
        criterion(subject, trained.data, seed=1, out=tmp_path)


def test_too_few_images_are_refused(trained: Trained) -> None:
    few = Dataset("few", trained.data.train, trained.data.test.take(np.arange(50)), trained.data.classes)
    with pytest.raises(InputError, match="at least 200 test images"):
        criterion(trained.subject("relu3"), few)


@pytest.fixture(scope="module")
def ours(trained: Trained) -> dict[str, Number]:
    return numbers(material(trained))


@pytest.mark.long
@pytest.mark.parametrize("change", ["scale", pytest.param("order", marks=pytest.mark.long)])
def test_neither_scale_nor_order_of_channels_moves_a_number(
    trained: Trained, ours: dict[str, Number], change: str
) -> None:
    plain = material(trained)
    edge, cloud = plain.configuration.split.edge, plain.configuration.split.cloud
    if change == "scale":
        other = material(trained, Times(edge, 1, 10.0), Times(cloud, 0.1, 1))
    else:
        order = torch.randperm(plain.z.shape[1], generator=torch.Generator().manual_seed(0))
        other = material(trained, Permuted(edge, order, after=True), Permuted(cloud, order, after=False))
    assert torch.allclose(plain.logits, other.logits, atol=1e-3)
    theirs = numbers(other)
    for name, number in ours.items():
        if number.value is None:
            assert theirs[name].value is None
        elif name in ("coded size", "dFIL at unit noise") and change == "order":
            # A coder reads in order, and the random directions of the probes belong to other channels.
            assert theirs[name].value == pytest.approx(number.value, rel=0.1)
        else:
            assert theirs[name].value == pytest.approx(number.value, rel=0.02, abs=0.05), name
