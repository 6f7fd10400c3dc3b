"""Gradients that lie are found and mended, those that do not are left alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from splitveil.lab.attacks.parts.gradients import Mended, agreement, lying, too_rough

from .conftest import images


class Turned(torch.autograd.Function):
    """The identity, whose gradient leads the wrong way."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return -grad


class After(nn.Module):
    """A convolution and a function of what it gives."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.function = nn.Conv2d(3, 8, 3, 2, 1), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


def hidden(z: Tensor) -> Tensor:
    with torch.no_grad():
        return z * 2


def in_place(z: Tensor) -> Tensor:
    return (z * 8).round_()


def turned(z: Tensor) -> Tensor:
    found: Tensor = Turned.apply(z)  # type: ignore[no-untyped-call]
    return found


LIES: dict[str, Callable[[Tensor], Tensor]] = {
    "round": lambda z: torch.round(8 * z) / 8,
    "floor and wave": lambda z: torch.floor(20 * z) / 20 + 1e-3 * torch.sin(3000 * z),
    "in place": in_place,
    "cast": lambda z: (100 * z).int().float(),
    "half": lambda z: (8 * z).to(torch.int16).to(torch.float32) / 8,
    "detached": lambda z: z.detach() + 1e-6 * z,
    "data": lambda z: 3 * z.data,
    "hidden": hidden,
    "turned": turned,
    "turned under another name": Turned.apply,
}
HONEST: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda z: z,
    "relu": torch.relu,
    "exp": lambda z: torch.exp(3 * z),
    "silu": nn.functional.silu,
    "clamped": lambda z: z.clamp(-0.5, 0.5),
    "pooled": lambda z: nn.functional.max_pool2d(z, 2),
    "sine": lambda z: torch.sin(2 * z),
}


@pytest.fixture
def x() -> Tensor:
    return images(8, 0).float() / 255


@pytest.mark.parametrize("name", LIES)
def test_a_gradient_that_lies_is_mended_and_no_value_changes(name: str, x: Tensor) -> None:
    edge = After(LIES[name]).eval()
    widths = lying(edge, x)
    mended = Mended(edge, widths)
    assert agreement(edge, x) < 0.5 < 0.75 < agreement(mended, x)
    assert torch.allclose(edge(x), mended(x), atol=1e-6)
    # Nothing of the watch stays behind.
    assert torch.allclose(torch.autograd.functional.jacobian(turned, torch.ones(1)), -torch.ones(1))


@pytest.mark.parametrize("name", HONEST)
def test_honest_gradients_are_left_alone(name: str, x: Tensor) -> None:
    edge = After(HONEST[name]).eval()
    assert not lying(edge, x)
    assert agreement(edge, x) > 0.9


def test_what_no_secant_mends_is_told(x: Tensor) -> None:
    edge = After(lambda z: torch.tensor(z.tolist()) + 0 * z).eval()
    assert agreement(Mended(edge, lying(edge, x)), x) < 0.5


def test_random_functions_are_no_lies(x: Tensor) -> None:
    assert not lying(After(lambda z: z + 0.1 * torch.randn_like(z)).eval(), x)


def test_comparisons_keep_their_type_where_it_is_needed(x: Tensor) -> None:
    edge = After(lambda z: torch.where(z > 0, z, 0.1 * z)).eval()
    assert torch.equal(Mended(edge, lying(edge, x))(x), edge(x))


def test_what_bf16_spoils(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitveil.lab.accelerator.Accelerator.bf16", True)
    fine = After(lambda z: z).eval()
    spoilt = After(lambda z: (z + 100) - 100).eval()
    assert not too_rough(fine, x)
    assert too_rough(spoilt, x)
    exact = Mended(spoilt, {}, exact=True)
    assert not too_rough(exact, x)
