import pytest
import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.metrics.clusters import standardised, within_clusters
from splitveil.lab.metrics.geometry import class_radius


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spheres(sigma: float, shape: tuple[int, ...] = (8, 4, 4), k: int = 5, n: int = 400) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % k
    centres = torch.randn(k, *shape, generator=draws(1))
    return centres[labels] + sigma * torch.randn(n, *shape, generator=draws(2)), labels


def test_clusters_that_are_there_are_found_without_labels() -> None:
    z, labels = spheres(0.5)
    found = within_clusters(z, 5, resamples=200)
    known = class_radius(z, labels, 5, resamples=0).relative
    assert found.within == pytest.approx(known, rel=0.1)
    assert found.interval[0] < found.within < found.interval[1]
    assert found.shuffled > 2 * found.within


def test_without_clusters_it_is_what_k_means_makes_of_shuffled_components() -> None:
    found = within_clusters(torch.randn(400, 8, 4, 4, generator=draws(3)), 5, resamples=50)
    assert found.within == pytest.approx(found.shuffled, abs=0.02)
    assert found.within > 0.9


def test_a_projection_keeps_the_share() -> None:
    z, labels = spheres(1.0, (16, 8, 8))
    narrow = within_clusters(z, 5, resamples=10)
    assert narrow.directions == 128
    assert narrow.within == pytest.approx(class_radius(z, labels, 5, resamples=0).relative, rel=0.06)
    assert within_clusters(z[:, :2, :4, :4], 5, resamples=10).directions == 32


@pytest.mark.parametrize("shape", [(6,), (6, 3, 3), (4, 6)])
def test_neither_scale_nor_shift_of_a_channel_moves_it(shape: tuple[int, ...]) -> None:
    z = torch.randn(60, *shape, generator=draws(4)) * 3 + 1
    scale, shift = torch.tensor([1e-3, 1, 7, 20, 1e4, 0.5]), torch.arange(6.0)
    moved = z * scale + shift if len(shape) != 3 else z * scale[:, None, None] + shift[:, None, None]
    assert torch.allclose(standardised(z), standardised(moved), atol=1e-3)
    assert standardised(z).shape == (60, z[0].numel())


def test_constant_channels_count_for_nothing() -> None:
    z, _ = spheres(0.5, (3, 2, 2))
    dead = torch.cat([z, torch.full_like(z[:, :1], 5.0)], 1)
    assert bool((standardised(dead)[:, 12:] == 0).all())
    assert within_clusters(dead, 5, resamples=10).within == pytest.approx(
        within_clusters(z, 5, resamples=10).within, rel=1e-5
    )
    assert within_clusters(torch.ones(20, 3), 2, resamples=10).within == 0


def test_the_same_seed_gives_the_same_number() -> None:
    z, _ = spheres(2.0, (40, 4, 4))
    first, again, other = (within_clusters(z, 5, resamples=20, seed=s) for s in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize(("n", "k", "directions"), [(10, 6, 8), (10, 0, 8), (10, 2, 0)])
def test_what_cannot_be_clustered_is_refused(n: int, k: int, directions: int) -> None:
    with pytest.raises(InputError, match=r"give more images or fewer clusters\.$"):
        within_clusters(torch.randn(n, 4), k, directions=directions)
