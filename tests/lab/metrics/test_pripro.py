import math

import pytest
import torch

from splitveil.core.errors import InputError
from splitveil.lab.metrics.pripro import (
    least_protected,
    normalised,
    pa_by_matching,
    privacy_index,
    squared_distance,
)

DRAWS = torch.Generator().manual_seed(0)
X = torch.rand(300, 3, 8, 8, generator=DRAWS)


def test_normalised_pa_is_zero_at_chance_and_one_without_protection() -> None:
    values = normalised(torch.tensor([0.1, 0.9, 0.5]), chance=0.1, clean=0.9)
    assert values.tolist() == pytest.approx([0, 1, 0.5], abs=1e-6)
    hits = torch.tensor([1.0, 0, 0, 1, 1])
    mean = normalised(hits.mean(), chance=0.2, clean=0.8).item()
    assert normalised(hits, chance=0.2, clean=0.8).mean().item() == pytest.approx(mean)
    with pytest.raises(InputError, match="a judge that knows"):
        normalised(hits, chance=0.5, clean=0.4)


def test_matching_finds_every_image_in_itself_and_none_in_its_neighbour() -> None:
    assert pa_by_matching(X, X).tolist() == [1.0] * 300
    assert pa_by_matching(X + 0.05 * torch.randn(X.shape, generator=DRAWS), X).mean() == 1
    assert pa_by_matching(X.roll(1, 0), X).sum() == 0


def test_matching_at_chance_for_guesses_that_say_nothing() -> None:
    constant = X.mean(0).expand_as(X)
    assert pa_by_matching(constant, X).sum() == 1, "one input is nearest to any constant"
    noise = torch.rand(X.shape, generator=DRAWS)
    assert pa_by_matching(noise, X).mean() < 0.03


def test_ties_are_drawn() -> None:
    inputs = torch.tensor([[0.0], [0.0], [1.0]])
    assert pa_by_matching(inputs, inputs).tolist() == [0.5, 0.5, 1]


def test_matching_by_another_distance() -> None:
    """Against inverted images pixels fail, and a distance that ignores the sign does not."""

    def unsigned(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return squared_distance((a - 0.5).abs(), (b - 0.5).abs())

    assert pa_by_matching(1 - X, X).mean() < 0.03
    assert pa_by_matching(1 - X, X, distance=unsigned).mean() == 1


def test_squared_distance_is_the_mean_over_elements() -> None:
    found = squared_distance(X[:30], X[:40])
    expected = (X[:30, None] - X[None, :40]).double().square().mean((2, 3, 4))
    assert torch.allclose(found, expected, atol=1e-9)


def test_privacy_index_of_each_input() -> None:
    clean = torch.tensor([0.9, 0.9, 0.9, 0.6, 0.05])
    guessed = torch.tensor([0.9, 0.1, 0.5, 0.9, 0.05])
    found = privacy_index(guessed, clean, chance=0.1)
    assert found[:4].tolist() == pytest.approx([0, 1, 0.5, 0], abs=1e-6)
    assert found[4].isnan(), "nothing was there to protect"
    assert privacy_index(torch.zeros(1), torch.ones(1), chance=0.1).tolist() == [1], "never above 1"


def test_the_quantile_looks_at_those_least_protected() -> None:
    pi = torch.linspace(0, 1, 101)
    assert least_protected(pi) == pytest.approx(0.05)
    assert least_protected(torch.cat([pi, torch.tensor([math.nan])])) == pytest.approx(0.05)
    assert math.isnan(least_protected(torch.tensor([math.nan])))


def test_bad_input() -> None:
    with pytest.raises(InputError, match="one guess for each input"):
        pa_by_matching(X[:2], X[:3])
    with pytest.raises(InputError, match="resize"):
        squared_distance(X[:2], X[:2, :1])
    with pytest.raises(InputError, match="confidences of one shape"):
        privacy_index(torch.rand(2), torch.rand(3), chance=0.1)
