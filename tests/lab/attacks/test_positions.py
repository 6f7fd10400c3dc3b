import pytest
import torch
from torch import Tensor, nn

from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack
from splitveil.lab.attacks.positions import pattern
from splitveil.lab.metrics import METRICS

from .conftest import Make


class Coded(nn.Module):
    """Says where the picture is bright by what it leaves out, and nothing by the values."""

    def forward(self, x: Tensor) -> Tensor:
        levels = torch.linspace(0.1, 0.9, 8).reshape(1, 8, 1, 1)
        grey = nn.functional.avg_pool2d(x.mean(1, keepdim=True), 2)
        return (grey > levels).float() * (1 + grey.mean())


def build(spec: str) -> Attack:
    attack = ATTACKS.build(spec)
    assert isinstance(attack, Attack)
    return attack


def psnr(attack: Attack, make_view: Make, edge: nn.Module, sigma: float = 0.0) -> float:
    view, truth = make_view(edge, sigma=sigma)
    return METRICS.build("psnr")(truth, attack(view).x_hat).mean().item()


SPEC = "positions:size=tiny,epochs=1,steps=150"


def test_a_pattern_says_where_and_not_how_much() -> None:
    assert pattern(torch.tensor([0.0, -0.0, 3.0, -1e-30])).tolist() == [0, 0, 1, 1]


def test_zeros_alone_give_the_picture_away(make_view: Make) -> None:
    assert psnr(build(SPEC), make_view, Coded()) > psnr(build("mean"), make_view, Coded()) + 1.5


def test_without_zeros_it_is_the_mean_image(make_view: Make) -> None:
    edge = nn.Conv2d(3, 8, 3, 2, 1)
    view, _ = make_view(edge)
    found = build(SPEC)(view)
    assert torch.equal(found.x_hat, build("mean")(view).x_hat)
    assert found.evidence["zeros"] == 0


def test_noise_hides_the_zeros(make_view: Make) -> None:
    assert psnr(build(SPEC), make_view, Coded(), sigma=0.1) == psnr(build("mean"), make_view, Coded())


def test_the_share_of_zeros_is_told(make_view: Make) -> None:
    view, _ = make_view(Coded())
    found = build("positions:size=tiny,epochs=1,steps=2")(view)
    assert found.evidence["zeros"] == pytest.approx((view.z == 0).float().mean().item())
    assert {"gain", "gap"} <= set(found.evidence)


def test_options_reach_the_decoder() -> None:
    attack = build("positions:size=medium,epochs=2,steps=7")
    assert repr(attack) == "positions:size=medium,epochs=2,steps=7"
    assert repr(attack.decoder).startswith("decoder:size=medium,epochs=2,steps=7,")  # type: ignore[attr-defined]
