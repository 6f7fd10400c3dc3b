"""Every attack and every training runs where its data are, tried on a pretended device: see `tests.lab.pretending`."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack, LabelAttack, Threat
from splitveil.lab.attacks.mle import MaximumLikelihood
from splitveil.lab.attacks.view import PRESETS, Aux, View
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.configuration import Configuration
from splitveil.lab.auditing.criterion.material import Material
from splitveil.lab.auditing.criterion.numbers import FAMILIES
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.cut import Split, trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.images import as_floats
from splitveil.lab.metrics import METRICS
from splitveil.lab.metrics.information import ESTIMATORS
from splitveil.lab.metrics.information.base import MIEstimate
from splitveil.lab.metrics.judge import Judge, adapt
from splitveil.lab.metrics.perceptual import deep_distance
from splitveil.lab.metrics.plates import train_reader
from splitveil.lab.models.loader import load_model
from splitveil.lab.planning.depth import curves
from splitveil.lab.planning.proxies import proxy
from splitveil.lab.protection import protect
from tests.lab.attacks.conftest import Passing, images, labels
from tests.lab.pretending import DEVICE, pretending

SHORT = {
    "steps": 2, "epochs": 1, "size": "tiny", "width": 8, "draws": 2, "ode": 1, "rough": 2, "fine": 2, "free": 2,
    "starts": 2, "per_class": 2, "k": 2, "decoder": "decoder:size=tiny,epochs=1,steps=2", "attack": "linear",
}  # fmt: skip
"""Options by name, of whatever attack has them."""
PRIVATE, KNOWN = 6, 48
DOUBLES = ("nopeek", "privynet", "noise_for_floor", "bottleneck")
"""Defences that compute in float64 where the device has it."""


@contextmanager
def on_pretended(*, apple: bool = False) -> Iterator[torch.device]:
    """In use; apple: without float64."""
    kind = patch.object(Accelerator, "exact", torch.float32) if apple else nullcontext()
    with pretending(apple=apple) as there, kind, Accelerator(there).used():
        yield there


@pytest.fixture
def device() -> Iterator[torch.device]:
    with on_pretended() as there:
        yield there


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitveil.lab.attacks.attribute.STEPS", 1)
    monkeypatch.setattr("splitveil.lab.attacks.parts.perceptual.STEPS", 1)
    monkeypatch.setattr("splitveil.lab.attacks.parts.perceptual.BATCH", 16)
    monkeypatch.setattr("splitveil.lab.attacks.shadow.MaximumLikelihood", lambda: MaximumLikelihood(steps=2))


def shortened(name: str) -> Threat:
    if ":" in name:
        return ATTACKS.build(name)
    options = inspect.signature(ATTACKS.get(name)).parameters
    return ATTACKS.build(name, **{k: v for k, v in SHORT.items() if k in options})


VARIANTS = (
    "decoder:size=tiny,epochs=1,steps=2,kind=attention,frequency=True,loss=perceptual",
    "mle:steps=2,optimizer=lbfgs,restarts=1,start=mean",
    "shadow:steps=2,learn=queries,arch=other",
    "attribute:head=mlp,epochs=1",
)
"""Options that take other ways than the usual ones."""
FORMS = (
    "patrol:lipschitz=0.1,adversarial=0.1,triplet=0.1", "cem:form=per_dimension", "pripro:budget=0.1,tokens=positions",
    "adversarial:term=ssim",
)  # fmt: skip


class Cloud(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.head = nn.Linear(16 * 16, 2)

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.head(z.flatten(1))
        return out


def view_on(device: torch.device, crossings: int, sigma: float) -> tuple[View, Tensor]:
    torch.manual_seed(3)
    edge = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()).eval().to(device)
    known = images(KNOWN, 2)
    aux = Aux(known, labels(known)).to(device)
    defense = Passing(sigma)
    with torch.no_grad():
        clean = edge(aux.images())
        z, *more = (defense(edge(images(PRIVATE, 1).to(device) / 255)) for _ in range(crossings))

    def observe(index: Tensor) -> Tensor:
        with torch.no_grad():
            seen: Tensor = defense(clean[index])
        return seen

    view = View(
        z, (3, 16, 16), knows=PRESETS["white-box"], aux=aux, observe=observe, query=lambda x: defense(edge(x)),
        edge=edge, defense=defense, cloud=Cloud().to(device), again=torch.stack(more) if more else None,
        stochastic=sigma > 0, seed=0,
    )  # fmt: skip
    return view, aux.y.cpu()


@pytest.mark.parametrize(("sigma", "apple"), [(0.0, False), (0.1, True)], ids=["exact", "noise"])
@pytest.mark.parametrize("name", [*ATTACKS.names(), *VARIANTS])
def test_an_attack_runs_where_the_features_are(name: str, sigma: float, *, apple: bool) -> None:
    attack = shortened(name)
    with on_pretended(apple=apple) as device:
        view, known = view_on(device, attack.crossings, sigma)
        if isinstance(attack, Attack):
            found = attack(view).x_hat
        else:
            assert isinstance(attack, LabelAttack)
            found = attack(view, known, 2).scores
    assert len(found) == PRIVATE
    assert found.device.type == "cpu"


def few() -> Dataset:
    data = load_data("digits")
    return Dataset("digits", data.train.take(np.arange(64)), data.test.take(np.arange(16)), data.classes)


def fresh(data: Dataset) -> Split:
    model = load_model("small", shape=data.shape, classes=10, weights=None).model
    return trace(model, torch.zeros(2, *data.shape)).split("relu2")


@pytest.mark.parametrize(
    ("name", "apple"), [*((n, True) for n in (*DEFENSES.names(), *FORMS)), *((n, False) for n in DOUBLES)], ids=str
)
def test_a_defence_trains_on_the_accelerator_and_comes_back(
    name: str, monkeypatch: pytest.MonkeyPatch, *, apple: bool
) -> None:
    data, defense, losses = few(), DEFENSES.build(name), []
    split = fresh(data)
    taken = Protected.loss

    def loss(self: Protected, x: Tensor, y: Tensor) -> Tensor:
        found = taken(self, x, y)
        losses.append((x.device, y.device, found.device))
        return found

    monkeypatch.setattr(Protected, "loss", loss)
    with on_pretended(apple=apple):
        protected, _ = protect(split, defense, "uniform:bits=8", data, epochs=len(defense.stages()))
    assert losses
    assert {d for one in losses for d in one} == {DEVICE}
    assert all(t.device.type == "cpu" for t in protected.state_dict().values())


@pytest.mark.parametrize("family", FAMILIES)
def test_cheap_numbers_are_made_where_the_features_are(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def brief(m: Material, name: str, x: Tensor, z: Tensor, *, seed: int = 0) -> MIEstimate:
        options = {"steps": 2} if "steps" in inspect.signature(ESTIMATORS.get(name)).parameters else {}
        return ESTIMATORS.build(name, x=x, z=z, seed=seed, **options)

    monkeypatch.setattr("splitveil.lab.auditing.criterion.numbers._estimate", brief)
    data = few()
    protected, _ = protect(fresh(data), "noise", "raw", data)
    x, y = as_floats(torch.from_numpy(data.train.x)), torch.from_numpy(data.train.y)
    with pretending() as there, Accelerator(there).used(protected):
        c = Configuration(protected.split.cut, protected)
        with torch.no_grad():
            z = protected.sent(x.to(there))
            logits = protected.split.cloud(z)
        numbers = FAMILIES[family](Material(c, x.to(there), z, y.to(there), logits, logits, 10, 0))
    assert numbers


@pytest.mark.parametrize("name", METRICS.names())
def test_a_metric_is_computed_where_the_guesses_are(name: str, device: torch.device) -> None:
    try:
        metric = METRICS.build(name)
    except (InputError, TypeError):
        pytest.skip("it needs files")
    x, guess = (torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(k)).to(device) for k in range(2))
    assert metric(x, guess).device == device


def test_a_judge_and_a_plate_reader_work_on_the_accelerator(device: torch.device) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.Flatten(), nn.LazyLinear(2))
    x, y = as_floats(images(8, 0)), labels(images(8, 0))
    net.cpu()(x)
    judge = Judge(net, "own")
    assert judge.probabilities(x).device.type == "cpu"
    assert adapt(judge, x, y, epochs=1).probabilities(x).shape == (8, 2)
    assert deep_distance(net, "own")(x, x.flip(0)).device.type == "cpu"
    reader = train_reader(images(4, 0), torch.ones(4, 4).long(), torch.full((4, 2), 8), epochs=1)
    assert reader.read(x).shape == (8, 4)


def test_an_audit_and_a_plan_measure_on_the_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitveil.lab.auditing.intervals.RESAMPLES", 10)
    monkeypatch.setattr("splitveil.lab.planning.depth.RESAMPLES", 2)
    data = few()
    protected, _ = protect(fresh(data), "noise", "uniform:bits=8", data)
    subject = Subject.of_split(protected, model="small", weights="none")
    wide = Dataset("digits", data.train, load_data("digits").train.take(np.arange(100)), data.classes)
    traced = trace(load_model("small", shape=data.shape, classes=10, weights=None).model, torch.zeros(2, *data.shape))
    cut = traced.cuts()[2].name
    traced.tap([cut])
    suite = custom_suite(["completion"])
    with pretending() as there, Accelerator(there).used():
        card = audit(subject, data, suite=suite, n=4, metrics=("registered_psnr",)).card
        assert proxy(protected, ["raw", "uniform:bits=4"], data.train, 0)
        (curve,) = curves(traced, wide, cuts=[cut])
    assert "pretend:0" in card.hardware
    assert {r.attack for r in card.rows} >= {"mean", "nearest"}
    assert "linear_mse" in curve.numbers
    assert all(t.device.type == "cpu" for t in protected.state_dict().values())
