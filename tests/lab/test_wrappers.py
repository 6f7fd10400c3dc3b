"""What merely holds the model is taken off; what does more is part of the model."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.cut import cuts, trace
from splitveil.lab.wrappers import uncompiled, unwrapped

from .cut.nets import Plain

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler of torch's own scripts
EXAMPLE = torch.rand(1, 3, 8, 8)


def compiled(model: nn.Module) -> nn.Module:
    held: Any = torch.compile(model)
    assert isinstance(held, nn.Module)
    return held


class Holder(nn.Module):
    """A user's own."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


class Doubling(Holder):
    def forward(self, x: Tensor) -> Any:
        return super().forward(2 * x)


class Softmax(Holder):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).softmax(1)


class Clamping(Holder):
    """Changes nothing of an image in [0, 1], and yet does something."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x.clamp(0, 1))


class Twice(Holder):
    def forward(self, x: Tensor) -> Any:
        super().forward(x)
        return super().forward(x)


class OnlyInEval(Holder):
    def forward(self, x: Tensor) -> Any:
        return (super().forward(x), x) if self.training else super().forward(x)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: compiled(m),
        nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        Holder,
        lambda m: Holder(compiled(m)),
        lambda m: nn.DataParallel(Holder(m)),
    ],
    ids=["compiled", "parallel", "averaged", "own", "own of compiled", "parallel of own"],
)
def test_holders_are_taken_off(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = Plain().eval()
    inner = unwrapped(wrap(model))
    assert type(inner) is Plain
    assert [c.name for c in cuts(wrap(model), EXAMPLE)] == [c.name for c in cuts(model, EXAMPLE)]


@pytest.mark.parametrize("wrap", [Doubling, Softmax, Clamping, Twice, OnlyInEval])
def test_what_does_more_stays(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = wrap(Plain())
    assert unwrapped(model) is model
    assert model.get_submodule("module").__class__ is Plain
    assert model.training


def test_a_hook_is_something_more() -> None:
    model = Holder(Plain())
    model.register_forward_hook(lambda module, given, out: out.softmax(1))
    assert unwrapped(model) is model


def test_a_held_part_keeps_its_name_and_can_be_cut() -> None:
    model = nn.Sequential(nn.DataParallel(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), nn.Flatten(), nn.LazyLinear(2))
    model(EXAMPLE)
    assert [c.name for c in cuts(model, EXAMPLE)] == ["0.module.0", "0"]


def test_a_compiled_part_runs_as_python() -> None:
    part = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    model = nn.Sequential(compiled(part), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    traced = trace(model, EXAMPLE)
    assert "0._orig_mod" in [name for c in traced.cuts() for name in c.also]
    with uncompiled(), torch.no_grad():
        assert torch.equal(traced.split("0._orig_mod.0")(EXAMPLE), model(EXAMPLE))


def _scripted() -> Any:
    return torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Linear(4, 2)))


def _traced_by_jit() -> Any:
    return torch.jit.trace(Plain().eval(), EXAMPLE)


def _exported() -> Any:
    return torch.export.export(Plain().eval(), (EXAMPLE,)).module()


def _program() -> Any:
    return torch.export.export(Plain().eval(), (EXAMPLE,))


@pytest.mark.filterwarnings("ignore")  # torch of its own converters
@pytest.mark.parametrize("make", [_scripted, _traced_by_jit, _exported, _program, lambda: Holder(_scripted())])
def test_programs_are_refused_in_one_sentence(make: Callable[[], Any]) -> None:
    with pytest.raises(
        InputError, match=r"expected .*odule.*, got .*; give the Python module that it was made from\.$"
    ):
        cuts(make(), EXAMPLE)


def test_a_graph_that_fx_made_is_a_model() -> None:
    model = torch.fx.symbolic_trace(Plain().eval(), concrete_args={"scale": None})
    assert [c.name for c in cuts(model, EXAMPLE)] == [c.name for c in cuts(Plain(), EXAMPLE)]


def test_uncompiled_needs_no_compiler() -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(uncompiled())
        assert Plain()(EXAMPLE).shape == (1, 5)
