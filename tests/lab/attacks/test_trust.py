"""What a guess invents is faded, and what it finds is kept."""

import pytest
import torch
from torch import Tensor

from splitveil.lab.attacks.parts.trust import Trust


def smooth(n: int, seed: int) -> Tensor:
    coarse = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear")


def noise(like: Tensor, seed: int) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def mse(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean())


def test_a_guess_that_is_worth_nothing_becomes_the_mean_image() -> None:
    truth, mean = smooth(64, 0), smooth(500, 1).mean(0)
    trust = Trust.learned(smooth(64, 2), truth, mean)
    guess, other = smooth(50, 3), smooth(50, 4)
    assert mse(trust(guess), other) < mse(guess, other)
    assert mse(trust(guess), other) == pytest.approx(mse(mean.expand_as(other), other), rel=0.06)


def test_right_frequencies_stay_and_invented_ones_go() -> None:
    truth, mean = smooth(64, 0), smooth(500, 1).mean(0)
    other = smooth(50, 4)
    trust = Trust.learned(truth + 0.2 * noise(truth, 5), truth, mean)
    guess = other + 0.2 * noise(other, 6)
    assert mse(trust(guess), other) < 0.3 * mse(guess.clamp(0, 1), other)
    low, high = trust.gains[0, 1], trust.gains[8, 8]
    assert low > 0.9
    assert high < 0.1


def test_a_perfect_guess_stays_as_it_is() -> None:
    truth = torch.rand(16, 1, 9, 7, generator=torch.Generator().manual_seed(0))
    trust = Trust.learned(truth, truth, truth.mean(0))
    assert torch.allclose(trust(truth), truth, atol=1e-5)
    assert torch.allclose(trust.gains, torch.ones_like(trust.gains))


def test_a_faint_guess_is_raised() -> None:
    truth = smooth(32, 0)
    mean = truth.mean(0)
    trust = Trust.learned(mean + 0.8 * (truth - mean), truth, mean)
    assert trust.gains[0, 1] == pytest.approx(1.25, rel=1e-3)
