"""What a bound needs of a defence: the deterministic part and the size of its noise."""

import pytest
import torch
from torch import Tensor, nn

from splitveil.core.registry import Spec
from splitveil.lab.cut import trace
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Defense

Z = torch.randn(64, 8, 4, 4, generator=torch.Generator().manual_seed(0))


def installed(name: str) -> Defense:
    defense = DEFENSES.build(Spec.parse(name))
    edge = [nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()]
    net = nn.Sequential(*edge, nn.Flatten(), nn.Linear(128, 5))
    defense.install(trace(net, torch.zeros(2, 3, 8, 8)).split("3"))
    defense.calibrate(Z)
    return defense


def moved(defense: Defense) -> Defense:
    """With weights as after training, no longer at their start."""
    with torch.no_grad():
        for p in defense.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return defense


@pytest.mark.parametrize("name", DEFENSES.names())
def test_mean_and_spread_make_what_leaves_the_device(name: str) -> None:
    defense = installed(name)
    spread = defense.spread(Z)
    noise = torch.randn_like(Z)
    if spread is not None:
        assert spread.shape == Z.shape[1:]
        assert bool(spread.any()) == defense.stochastic
        made = defense.mean(Z) + spread * noise
        assert torch.allclose(defense.apply_noise(Z, noise if defense.stochastic else None), made, atol=1e-6)


@pytest.mark.parametrize("name", DEFENSES.names())
def test_what_an_adversary_is_told_is_what_many_requests_of_one_image_average_to(name: str) -> None:
    torch.manual_seed(0)
    defense = moved(installed(name))
    with torch.no_grad():
        told = defense.expected(Z[:1])
        if told is None:
            assert not defense.stochastic
            return
        sent = defense(Z[:1].expand(20_000, -1, -1, -1))
    mean, deviation = told
    assert deviation.expand_as(mean).shape == Z[:1].shape
    assert torch.allclose(sent.std(0), deviation.expand_as(mean)[0], rtol=0.05)
    assert ((sent.mean(0) - mean[0]).abs() / deviation.expand_as(mean)[0].clamp_min(1e-6)).max() < 5 / 20_000**0.5


@pytest.mark.parametrize("name", ["pripro", "vib"])
def test_noise_whose_size_depends_on_the_input_is_told_to_adversaries_but_has_no_spread(name: str) -> None:
    defense = moved(installed(name))
    deviation = defense.deviation(Z[:2])
    assert defense.spread(Z) is None
    assert deviation is not None
    one, other = deviation.expand(2, *Z.shape[1:])
    assert not torch.allclose(one, other)


def test_other_noise_has_no_spread_unless_it_says_so() -> None:
    class Dropout(Defense):
        name = "dropout"
        stochastic = True

        def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
            return z if noise is None else z * (noise > 0)

    assert Dropout().spread(Z) is None
