"""Every attack against edges whose answer is known: the identity gives everything away, a constant gives nothing."""

import pytest
import torch
from torch import Tensor, nn

from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack
from splitveil.lab.attacks.view import Knows
from splitveil.lab.metrics import METRICS

from .conftest import Make

FLOORS = ("mean", "class_mean", "nearest")
CASES = {
    "mean": "mean",
    "class_mean": "class_mean",
    "nearest": "nearest",
    "linear": "linear",
    "decoder": "decoder:size=tiny,epochs=1,steps=600",
    "mle": "mle:steps=150",
    "deep_prior": "deep_prior:steps=150,width=16",
    "shadow": "shadow:learn=queries,steps=200",
    "positions": "positions:size=tiny,epochs=1,steps=400",
    "canonical": "canonical:attack=[mle:steps=150]",
    "dual": "dual",
    "repeat": "repeat:attack=linear,k=2",
    "law": "law:attack=linear,k=2",
    "clip": "clip:attack=linear,frames=2,shift=0,light=0,noise=0",
    "glass": (
        "glass:width=16,steps=100,epochs=1,starts=2,rough=5,fine=30,free=40,"
        "decoder=[decoder:size=tiny,epochs=1,steps=300]"
    ),
    "flow": "flow:width=16,steps=200,epochs=1,draws=2,ode=4,decoder=[decoder:size=tiny,epochs=1,steps=300]",
}
"""One row an attack: a new one adds its own here."""
LONG = ("glass", "flow", "decoder", "positions", "shadow")
"""Tests of their own stand beside the long ones here."""
LESS_THAN_ALL = {"positions": 14.0}
"""Attacks that cannot see everything even through the identity, and the dB that they reach there."""


class Constant(nn.Module):
    """Says nothing about x."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), 8, 4, 4) + 0 * x.mean()


def build(spec: str) -> Attack:
    attack = ATTACKS.build(spec)
    assert isinstance(attack, Attack)
    return attack


def conv_edge() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU())


def psnr(attack: Attack, make_view: Make, edge: nn.Module, scale: float = 1.0, sigma: float = 0.0) -> float:
    view, truth = make_view(edge, scale=scale, sigma=sigma, crossings=attack.crossings)
    return METRICS.build("psnr")(truth, attack(view).x_hat).mean().item()


def test_every_attack_has_a_case() -> None:
    names = {n for n in ATTACKS.names() if issubclass(ATTACKS.get(n), Attack)}  # type: ignore[arg-type]
    assert set(CASES) == names


@pytest.mark.parametrize("name", [n for n in CASES if n not in FLOORS])
def test_identity_edge_gives_everything_away(name: str, make_view: Make) -> None:
    assert psnr(build(CASES[name]), make_view, nn.Identity()) > LESS_THAN_ALL.get(name, 40)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.long] * (n in LONG)) for n in CASES])
def test_constant_edge_gives_nothing_away(name: str, make_view: Make) -> None:
    floor = psnr(build("mean"), make_view, Constant())
    assert psnr(build(CASES[name]), make_view, Constant()) <= floor + 0.05


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.long] * (n in LONG)) for n in CASES])
def test_attacks_beat_the_floors_on_a_real_edge_and_scaling_it_moves_no_score(name: str, make_view: Make) -> None:
    attack = build(CASES[name])
    values = [psnr(attack, make_view, conv_edge(), scale=s) for s in (1.0, 10.0)]
    assert values[0] == pytest.approx(values[1], abs=0.3)
    assert name in FLOORS or values[0] > max(psnr(build(f), make_view, conv_edge()) for f in FLOORS) + 1


@pytest.mark.parametrize("name", ["decoder", "mle"])
def test_attacks_are_repeatable_and_do_not_depend_on_what_ran_before(name: str, make_view: Make) -> None:
    attack = build({"decoder": "decoder:epochs=1,steps=5", "mle": "mle:steps=5"}[name])
    view, _ = make_view(conv_edge(), sigma=0.1)
    first = attack(view).x_hat
    torch.rand(7)
    view, _ = make_view(conv_edge(), sigma=0.1)
    assert torch.equal(first, attack(view).x_hat)


@pytest.mark.long
@pytest.mark.parametrize("name", ["decoder", "mle"])
def test_noise_hurts_but_does_not_blind(name: str, make_view: Make) -> None:
    attack = build(CASES[name])
    noisy, clear = psnr(attack, make_view, conv_edge(), sigma=0.03), psnr(attack, make_view, conv_edge())
    assert psnr(build("mean"), make_view, conv_edge()) < noisy < clear


@pytest.mark.parametrize("name", CASES)
def test_needs_are_enforced(name: str, make_view: Make) -> None:
    from splitveil.core.errors import ThreatModelError

    attack = build(CASES[name])
    for missing in attack.needs:
        view, _ = make_view(conv_edge(), knows=~Knows.NOTHING & ~missing)
        with pytest.raises(ThreatModelError, match=missing.name or ""):
            attack(view)


def test_class_mean_follows_the_cloud_not_the_truth(make_view: Make) -> None:
    class Bright(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            bright = z[:, 0].mean((1, 2))
            return torch.stack([0.5 - bright, bright - 0.5], 1)

    view, truth = make_view(nn.Identity(), cloud=Bright())
    guess = build("class_mean")(view).x_hat
    answers = Bright()(truth).argmax(1)
    for label in (0, 1):
        mean = view.aux.images()[view.aux.y == label].mean(0)
        assert torch.allclose(guess[answers == label], mean.expand(int((answers == label).sum()), -1, -1, -1))


def test_nearest_finds_an_image_that_the_adversary_holds(make_view: Make) -> None:
    view, _ = make_view(conv_edge())
    view.z = view.observe(torch.tensor([5, 200, 17]))
    assert torch.equal(build("nearest")(view).x_hat, view.aux.images(torch.tensor([5, 200, 17])))


def test_mle_without_aux_starts_from_grey_and_still_inverts(make_view: Make) -> None:
    view, truth = make_view(nn.Conv2d(3, 16, 3, 1, 1), knows=Knows.WEIGHTS | Knows.DEFENSE)
    found = METRICS.build("psnr")(truth, build("mle:steps=200")(view).x_hat).mean().item()
    assert found > 25
