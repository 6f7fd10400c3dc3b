"""What a bound needs of a defence: the deterministic part and the size of its noise."""

import pytest
import torch
from torch import Tensor, nn

from splitveil.cut import trace
from splitveil.defenses import DEFENSES
from splitveil.defenses.base import Defense
from splitveil.registry import Spec

Z = torch.randn(64, 8, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", DEFENSES.names())
def test_mean_and_spread_make_what_leaves_the_device(name: str) -> None:
    defense = DEFENSES.build(Spec.parse(name))
    edge = [nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()]
    net = nn.Sequential(*edge, nn.Flatten(), nn.Linear(128, 5))
    defense.install(trace(net, torch.zeros(2, 3, 8, 8)).split("3"))
    defense.calibrate(Z)
    spread = defense.spread(Z)
    noise = torch.randn_like(Z)
    if spread is not None:
        assert spread.shape == Z.shape[1:]
        assert bool(spread.any()) == defense.stochastic
        made = defense.mean(Z) + spread * noise
        assert torch.allclose(defense.apply_noise(Z, noise if defense.stochastic else None), made, atol=1e-6)


def test_other_noise_has_no_spread_unless_it_says_so() -> None:
    class Dropout(Defense):
        name = "dropout"
        stochastic = True

        def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
            return z if noise is None else z * (noise > 0)

    assert Dropout().spread(Z) is None
