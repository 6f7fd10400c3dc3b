import pytest
import torch
from torch import Tensor, nn

from splitveil.core.errors import InputError
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack
from splitveil.lab.metrics import METRICS

from .conftest import Make

DECODER = "decoder=[decoder:size=tiny,epochs=1,steps=100]"
QUICK = f"flow:steps=80,epochs=1,width=16,draws=1,ode=4,{DECODER}"


def build(spec: str) -> Attack:
    attack = ATTACKS.build(spec)
    assert isinstance(attack, Attack)
    return attack


class Coarse(nn.Module):
    """Keeps what is left at a quarter of the resolution."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 8)


def energy(x: Tensor) -> float:
    """Mean squared difference of neighbours."""
    return ((x[..., 1:] - x[..., :-1]).square().mean() + (x[..., 1:, :] - x[..., :-1, :]).square().mean()).item()


@pytest.mark.long
def test_draws_are_as_sharp_as_the_truth_where_the_decoder_blurs(make_view: Make) -> None:
    view, truth = make_view(Coarse())
    blurred = build("decoder:size=tiny,epochs=1,steps=100")(view).x_hat
    drawn = build(QUICK.replace("steps=80", "steps=300"))(view).x_hat
    assert energy(blurred) < 0.6 * energy(truth)
    assert 0.7 * energy(truth) < energy(drawn) < 1.8 * energy(truth)


def test_the_nearest_of_several_draws_is_nearer_than_one(make_view: Make) -> None:
    torch.manual_seed(3)
    edge = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
    far = []
    for draws in (1, 6):
        view, _ = make_view(edge)
        x_hat = build(QUICK.replace("draws=1", f"draws={draws}"))(view).x_hat
        far.append((view.query(x_hat) - view.z).square().mean().item())
    assert far[1] < 0.95 * far[0]


def test_evidence_tells_of_gain_and_gap(make_view: Make) -> None:
    view, truth = make_view(Coarse())
    found = build(QUICK)(view)
    assert set(found.evidence) == {"gain", "gap", "sampled"}
    assert METRICS.build("psnr")(truth, found.x_hat).isfinite().all()


@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_results_repeat(sigma: float, make_view: Make) -> None:
    spec = QUICK.replace("steps=80", "steps=8").replace("draws=1", "draws=2")
    first = build(spec)(make_view(Coarse(), sigma=sigma)[0]).x_hat
    torch.rand(7)
    assert torch.equal(first, build(spec)(make_view(Coarse(), sigma=sigma)[0]).x_hat)


@pytest.mark.parametrize("spec", ["flow:steps=0", "flow:draws=0", "flow:decoder=mle", "flow:ode=0"])
def test_bad_options_are_one_sentence(spec: str) -> None:
    with pytest.raises(InputError, match=r"; use "):
        build(spec)


def test_the_registry_rebuilds_it_from_its_repr() -> None:
    attack = build(QUICK)
    assert repr(build(repr(attack))) == repr(attack)
