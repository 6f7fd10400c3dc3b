"""`protect`: scales follow the weights, every stage gets an epoch, and what cannot be trained is refused at once."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import AnswerError, InputError
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.cut import Split, trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.defenses.chain import Chain
from splitveil.lab.metrics.utility import accuracy
from splitveil.lab.models.loader import load_model
from splitveil.lab.protection import accuracy_of, protect, shared, validation_accuracy
from splitveil.wire.codecs import CODECS


def digits(count: int = 256) -> Dataset:
    data = load_data("digits")
    return Dataset("digits", data.train.take(np.arange(count)), data.test.take(np.arange(64)), data.classes)


def fresh(at: str = "relu2", seed: int = 0) -> Split:
    model = load_model("small", shape=(1, 8, 8), classes=10, weights=None, seed=seed).model
    return trace(model, torch.zeros(2, 1, 8, 8)).split(at)


@pytest.mark.parametrize(("defense", "codec"), [("none", "uniform:bits=8"), ("noise:sigma=0.5", "raw")])
def test_scales_follow_the_features_while_they_grow(defense: str, codec: str) -> None:
    """Quiet weights become loud ones: with the scales of the start a quantiser saturates and the wrong epoch is kept,
    and a clip is another one while training than afterwards."""
    data, split = digits(600), fresh()
    with torch.no_grad():
        for weight in split.edge.parameters():
            weight.mul_(0.2)
    protected, history = protect(split, defense, codec, data, epochs=8, lr=5e-3)
    assert max(history.scores) > 0.8
    assert validation_accuracy(protected, data) == pytest.approx(max(history.scores), abs=0.04)


@pytest.mark.parametrize(
    ("shares", "epochs", "spans"),
    [([0.5, 0.5], 4, [2, 2]), ([0.25] * 4, 4, [1, 1, 1, 1]), ([0.9, 0.1], 4, [3, 1]), ([0.5, 0.5], 1, [0, 1])],
)
def test_epochs_are_shared_out_with_one_for_each_stage(shares: list[float], epochs: int, spans: list[int]) -> None:
    assert sum(shared(shares, epochs)) == epochs
    assert sorted(shared(shares, epochs)) == sorted(spans)


def test_fewer_epochs_than_stages_are_refused() -> None:
    with pytest.raises(InputError, match=r"at least 4 epochs, one for each stage of shredder, got 2; use --epochs 4"):
        protect(fresh(), "shredder", "raw", digits(), epochs=2)


@pytest.mark.parametrize("parts", ["ensembler + cloak", "siftfunnel:refit=0.5 + cloak", "privynet + ensembler"])
def test_a_stage_in_which_nothing_may_move_is_refused(parts: str) -> None:
    with pytest.raises(InputError, match="expected something to train in the stage"):
        protect(fresh(), f"chain:of=[{parts}]", "raw", digits(64), epochs=2)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ("shredder:collection=1 + patrol", "each of shredder and patrol trains in stages"),
        ("disco + noise_for_floor", "noise_for_floor measures the edge's own features; put it before disco"),
        ("noise + cem", "cem measures the edge's own features; put it before noise"),
        ("cloak + bottleneck", "bottleneck changes the shape of what crosses; put it before cloak"),
        ("pripro:layers=2 + noise", "pripro at several layers acts inside the edge half"),
        ("bottleneck + privynet", "put bottleneck after what changes the edge half"),
    ],
)
def test_an_order_that_does_not_work_is_refused_with_the_one_that_does(parts: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        protect(fresh(), f"chain:of=[{parts}]", "raw", digits(64), epochs=2)


@pytest.mark.parametrize(
    "parts",
    [
        "privynet + bottleneck",
        "privynet + siftfunnel:replace=0",
        "shredder:collection=1 + label_smoothing",
        "label_smoothing + veil",
        "veil + top_k",
        "pripro:layers=2 + label_smoothing",
        "noise_for_floor + disco",
    ],
)
def test_other_orders_train(parts: str) -> None:
    protected, history = protect(fresh(), f"chain:of=[{parts}]", "raw", digits(64), epochs=1)
    assert len(history.losses) == 1
    assert isinstance(protected.defense, Chain)
    protected(torch.rand(2, 1, 8, 8))
    copy.deepcopy(protected)
    held = [v for v in vars(protected.defense).values() if isinstance(v, list | tuple | torch.Tensor)]
    assert held == [], "no training images' features stay behind"


@pytest.mark.parametrize("spec", ["nopeek", "siftfunnel"])
def test_no_batch_is_a_single_image(spec: str) -> None:
    """36 images leave 33 to train on, one more than a batch: terms over pairs of images need two."""
    assert len(protect(fresh(), spec, "raw", digits(36), epochs=1)[1].losses) == 1


def test_means_in_a_chain_are_the_parts_own() -> None:
    z = torch.rand(4, 8, 4, 4)
    chain = DEFENSES.build("chain:of=[label_smoothing + dropout:rate=0.6]")
    assert torch.allclose(chain.mean(z), 0.4 * z)


def test_nan_answers_are_no_accuracy() -> None:
    """The largest of NaN is a class by accident: an accuracy of it would be a lie."""
    split, data = fresh(), digits(64)
    with torch.no_grad():
        next(split.cloud.parameters()).fill_(float("nan"))
    with pytest.raises(
        AnswerError, match=r"expected finite answers of the net, got NaN or infinity for 64 of 64 images"
    ):
        accuracy_of(Protected(split, DEFENSES.build("none"), CODECS.build("raw")), data)
    with pytest.raises(AnswerError):
        accuracy(torch.tensor([[0.0, float("inf")]]), torch.tensor([1]))
    subject = Subject.of_split(Protected(split, DEFENSES.build("none"), CODECS.build("raw")), model="m", weights="w")
    with pytest.raises(AnswerError, match=r"relu2 \| none \| raw"):
        audit(subject, data, suite=custom_suite(["linear"]), n=8)


class Counted(nn.Module):
    """Keeps a whole number as a parameter, and its weights where `kept` says."""

    def __init__(self, kept: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.often = nn.Parameter(torch.tensor([3]), requires_grad=False)
        layers = [nn.Conv2d(1, 4, 3), nn.Linear(4, 10)]
        self.layers: Any = nn.ModuleList(layers) if kept == "modules" else layers
        if kept != "modules":
            del self.often

    def forward(self, x: Tensor) -> Tensor:
        conv, fc = self.layers
        z = conv(x).relu()
        logits: Tensor = fc((z * self.often if hasattr(self, "often") else z).mean((2, 3)))
        return logits


def test_a_parameter_that_counts_stays_and_the_others_train() -> None:
    data = digits(64)
    traced = trace(Counted("modules"), torch.zeros(1, *data.shape))
    protected, _ = protect(traced.split("layers.0+relu"), "none", "raw", data, epochs=1)
    kept = [p for p in protected.parameters() if not p.is_floating_point()]
    assert all(p.tolist() == [3] and not p.requires_grad for p in kept)


def test_a_model_without_parameters_is_told_so() -> None:
    data = digits(64)
    traced = trace(Counted("a list"), torch.zeros(1, *data.shape))
    with pytest.raises(InputError, match=r"the model has no parameters; keep them as nn.Parameter in modules"):
        protect(traced.split(traced.cuts()[0].name), "none", "raw", data, epochs=1)
