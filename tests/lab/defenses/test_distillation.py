import math

import pytest
import torch
from torch import nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import trace
from splitveil.lab.cut.pieces import Split
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Batch, Sample
from splitveil.lab.defenses.distillation import Distillation
from splitveil.lab.models.loader import load_model


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def split_of() -> Split:
    model = load_model("small", shape=(1, 8, 8), classes=4, weights=None, seed=0).model
    return trace(model, torch.zeros(2, 1, 8, 8)).split("relu2")


def batch(split: Split, x: torch.Tensor, logits: torch.Tensor) -> Batch:
    h = split.edge(x)
    return Batch(x=x, y=torch.zeros(len(x), dtype=torch.long), h=h, z=h, logits=logits, edge=split.edge)


def test_zero_for_the_teacher_and_the_formula_for_others() -> None:
    defense = DEFENSES.build("distillation:weight=0.5,temperature=2.0")
    split = defense.install(split_of()).eval()
    x = draws(6, 1, 8, 8).sigmoid()
    with torch.no_grad():
        teacher = split(x)
    assert defense.penalty(batch(split, x, teacher)).item() == pytest.approx(0, abs=1e-6)
    flat = torch.zeros_like(teacher)
    p = (teacher / 2).softmax(1)
    expected = 0.5 * 4 * (p * (p.log() - math.log(1 / 4))).sum(1).mean().item()
    assert defense.penalty(batch(split, x, flat)).item() == pytest.approx(expected, rel=1e-4)


def test_the_teacher_stays_as_it_came_and_leaves_no_trace() -> None:
    defense = Distillation()
    split = defense.install(split_of()).eval()
    x = draws(6, 1, 8, 8).sigmoid()
    with torch.no_grad():
        before = split(x)
        for p in split.parameters():
            p.zero_()
    assert defense.penalty(batch(split, x, before)).item() == pytest.approx(0, abs=1e-6), "the teacher moved along"
    assert not list(defense.parameters())
    assert not defense.state_dict()
    defense.finish(split)
    assert defense.penalty(batch(split, x, 0 * before)).item() == 0


def test_a_teacher_that_knows_nothing_is_dismissed() -> None:
    x, y = draws(200, 1, 8, 8).sigmoid(), torch.arange(200) % 4
    fresh = Distillation()
    split = fresh.install(split_of()).eval()
    fresh.study(split, Sample(x, y, 0))
    logits = draws(200, 4)
    assert fresh.penalty(batch(split, x, logits)).item() == 0
    knows = Distillation()
    split = knows.install(split_of()).eval()
    with torch.no_grad():
        knows.study(split, Sample(x, split(x).argmax(1), 0))
    assert knows.penalty(batch(split, x, logits)).item() > 0


def test_options_out_of_range() -> None:
    with pytest.raises(InputError, match="distillation:weight=1"):
        DEFENSES.build("distillation:weight=-1")


def test_it_is_no_module_of_the_split() -> None:
    split = split_of()
    before = [name for name, _ in split.named_parameters()]
    assert [name for name, _ in Distillation().install(split).named_parameters()] == before
    assert isinstance(split.edge, nn.Module)
