"""Bits of the quantised features, and the count that is no privacy."""

import math

import numpy as np
import pytest
import torch

from splitveil.core.errors import InputError
from splitveil.lab.metrics.information.entropy import coded_bits, effective_volume, quantised, quantised_entropy


def uniform(n: int = 4000) -> torch.Tensor:
    return torch.rand(n, 2, 2, 2, generator=torch.Generator().manual_seed(0))


def test_levels_are_uniform_over_each_channels_range() -> None:
    z = torch.stack([torch.linspace(0, 3, 4), torch.linspace(-30, 0, 4)], 1)
    assert quantised(z, 2).tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert quantised(torch.full((5, 3), 7.0), 8).eq(0).all()
    assert quantised(uniform(), 8).dtype == torch.uint8
    assert quantised(uniform(), 8).shape == uniform().shape


def test_uniform_elements_have_all_their_bits() -> None:
    # The two levels at the ends of the range are half as wide as the others.
    p = np.array([0.5, *[1.0] * 14, 0.5]) / 15
    assert quantised_entropy(uniform(), bits=4) == pytest.approx(-8 * (p * np.log2(p)).sum(), abs=0.05)
    assert quantised_entropy(uniform(), bits=8) == pytest.approx(64, abs=0.2)


def test_miller_and_madow_take_most_of_the_bias_away() -> None:
    z = uniform(500)
    levels = quantised(z, 6).flatten(1).numpy()
    plain = 0.0
    for column in levels.T:
        share = np.bincount(column) / 500
        plain -= (share[share > 0] * np.log2(share[share > 0])).sum()
    truth, corrected = quantised_entropy(uniform(40000), 6), quantised_entropy(z, 6)
    assert abs(corrected - truth) < 0.25 * abs(plain - truth)


def test_a_few_equal_levels_are_counted_exactly() -> None:
    z = (torch.arange(4000) % 4).float()[:, None]
    assert quantised_entropy(z, 8) == pytest.approx(2 + 3 / 8000 / math.log(2))
    assert quantised_entropy(torch.ones(100, 3)) == 0


def test_scale_place_order_and_channels_do_not_matter() -> None:
    z = uniform(500)
    first = quantised_entropy(z), coded_bits(z), effective_volume(z)
    for other in (8 * z, z.flip(0)):
        assert (quantised_entropy(other), coded_bits(other), effective_volume(other)) == pytest.approx(first)
    assert quantised_entropy(z.flip(1)) == pytest.approx(first[0])
    assert quantised_entropy(10 * z + 3) == pytest.approx(first[0], rel=0.01)


def test_coded_size_is_near_the_entropy_of_what_cannot_be_compressed_and_falls_where_it_can() -> None:
    z = torch.rand(50, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert 0.98 * 8 * 1024 < coded_bits(z) < 1.02 * 8 * 1024
    sparse = z * (z > 0.95)
    assert coded_bits(sparse) < 0.3 * coded_bits(z)
    assert coded_bits(torch.zeros(5, 4, 16, 16)) < 200


def test_the_effective_volume_is_the_count_and_noise_is_its_worst_score() -> None:
    z = torch.zeros(10, 3, 4)
    z[:, 0] = 1e-9
    assert effective_volume(z) == 4
    assert effective_volume(z + 1e-3 * torch.randn(z.shape)) == 12


def test_input_that_cannot_be_used() -> None:
    with pytest.raises(InputError, match="1 to 8 bits, got 9"):
        coded_bits(uniform(), 9)
    with pytest.raises(InputError, match="finite z"):
        effective_volume(torch.tensor([math.nan]))
    with pytest.raises(InputError, match="at least one feature"):
        quantised_entropy(torch.zeros(0, 3))
