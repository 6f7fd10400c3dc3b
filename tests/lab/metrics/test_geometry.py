import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from splitveil.core.errors import InputError
from splitveil.lab.metrics import geometry
from splitveil.lab.metrics.geometry import Radius, class_radius, cluster_radius, effective_rank, spectral_rank
from splitveil.lab.metrics.zone import (
    conditional_entropy_bound,
    crossing_bound,
    drops,
    h_bounds,
    quantisation_constant,
    transition,
)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clusters(
    per_class: int, classes: int = 10, shape: tuple[int, ...] = (8, 2, 2), sigma: float = 0.5, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Spheres of R_c^2 = D sigma^2 about standard normal centres; (N, *shape) and (N,), in random order."""
    labels = torch.arange(classes).repeat(per_class)[torch.randperm(classes * per_class, generator=draws(seed))]
    centres = torch.randn(classes, *shape, generator=draws(seed + 1))
    return centres[labels] + sigma * torch.randn(len(labels), *shape, generator=draws(seed + 2)), labels


def same(a: Radius, b: Radius, rel: float = 1e-6) -> None:
    for name in ("uncorrected", "corrected", "per_dimension", "relative", "total", "dimensions"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=rel), name
    assert torch.allclose(a.by_class, b.by_class, rtol=rel, equal_nan=True)


def test_spheres_have_their_radius() -> None:
    z, labels = clusters(400)
    found = class_radius(z, labels, 10, standardise=False)
    assert found.corrected == pytest.approx(32 * 0.25, rel=0.02)
    assert found.per_dimension == pytest.approx(0.25, rel=0.02)
    assert found.by_class.tolist() == pytest.approx([8] * 10, rel=0.06)
    means = torch.stack([z[labels == c].mean(0) for c in range(10)])
    between = (means - means.mean(0)).square().mean()
    assert found.relative == pytest.approx(0.25 / (0.25 + float(between)), rel=0.02)
    assert found.total == pytest.approx(float(z.double().var(0).mean()), rel=1e-6)
    assert (found.dimensions, found.left_out, found.counts.tolist()) == (32, 0, [400] * 10)


def test_it_is_the_plain_formula() -> None:
    z, labels = clusters(7, shape=(5,))
    rows = z.double()
    known = [float((rows[labels == c] - rows[labels == c].mean(0)).square().sum(1).mean()) for c in range(10)]
    found = class_radius(z, labels, 10, standardise=False)
    assert found.uncorrected == pytest.approx(sum(known) / 10)
    assert found.by_class.tolist() == pytest.approx([7 / 6 * r for r in known])


def test_class_size_is_corrected() -> None:
    """Two images a class halve the published radius; the corrected one stays."""
    z, labels = clusters(2, classes=500)
    found = class_radius(z, labels, 500, standardise=False)
    assert found.uncorrected == pytest.approx(4, rel=0.1)
    assert found.corrected == pytest.approx(8, rel=0.1)


def test_singletons_do_not_look_tight() -> None:
    z, labels = clusters(100)
    alone, of = torch.cat([z, 5 + z[:3]]), torch.cat([labels, torch.tensor([10, 11, 12])])
    found, without = class_radius(alone, of, 14), class_radius(z, labels, 10)
    assert found.left_out == 4
    assert found.counts.tolist() == [100] * 10 + [1, 1, 1, 0]
    assert bool(found.by_class[10:].isnan().all())
    assert found.per_dimension == pytest.approx(without.per_dimension, rel=1e-6)
    assert class_radius(alone, of, 14, least=100).left_out == 4


def test_half_the_dimensions_are_no_drop() -> None:
    """256 x 8 x 8 to 512 x 4 x 4 halves the published sum, which its rule calls a transition."""
    wide, narrow = clusters(60, shape=(4, 8, 8)), clusters(60, shape=(8, 4, 4))
    radii = [class_radius(z, labels, 10, standardise=False) for z, labels in (wide, narrow)]
    assert transition([r.uncorrected for r in radii]) == (1,)
    assert transition([r.per_dimension for r in radii]) is None
    assert transition([r.relative for r in radii]) is None


def test_scale_moves_nothing_unless_raw() -> None:
    z, labels = clusters(30)
    found, raw = class_radius(z, labels, 10), class_radius(z, labels, 10, standardise=False)
    same(class_radius(10 * z, labels, 10), found)
    same(class_radius(z * torch.linspace(0.1, 20, 8)[:, None, None] - 3, labels, 10), found, rel=1e-4)
    same(class_radius(z[:, torch.randperm(8, generator=draws())], labels, 10), found)
    larger = class_radius(10 * z, labels, 10, standardise=False)
    assert larger.per_dimension == pytest.approx(100 * raw.per_dimension, rel=1e-5)
    assert larger.relative == pytest.approx(raw.relative, rel=1e-5)


def test_one_batch_of_many_classes_is_not_the_set() -> None:
    """128 images of 64 classes: the published number is half of what the whole set gives; ours is near."""
    z, labels = clusters(40, classes=64)
    whole = class_radius(z, labels, 64, standardise=False)
    batch = class_radius(z[:128], labels[:128], 64, standardise=False)
    assert batch.uncorrected < 0.7 * whole.uncorrected
    assert batch.corrected == pytest.approx(whole.corrected, rel=0.1)


@pytest.mark.parametrize("shape", [(6,), (5, 4), (3, 4, 4)])
def test_parts_and_order_do_not_matter(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    z, labels = clusters(20, shape=shape)
    whole = class_radius(z, labels, 10)
    order = torch.randperm(len(z), generator=draws(5))
    same(class_radius(z[order], labels[order], 10), whole)
    monkeypatch.setattr(geometry, "CHUNK", 7 * z[0].numel())
    assert class_radius(list(z.split(23)), labels, 10).per_dimension == pytest.approx(whole.per_dimension, rel=1e-9)
    same(class_radius(z, labels, 10), whole)


def test_channels_of_tokens_are_their_last_axis() -> None:
    z, labels = clusters(30, shape=(6, 4))
    same(class_radius(z, labels, 10), class_radius(z.transpose(1, 2)[..., None], labels, 10))
    same(class_radius(z * torch.tensor([1.0, 9, 0.1, 3]), labels, 10), class_radius(z, labels, 10), rel=1e-5)


def test_dead_channels_are_no_tightness() -> None:
    z, labels = clusters(30)
    dead = torch.cat([z, torch.full_like(z, 0.3)], 1)
    same(class_radius(dead, labels, 10), class_radius(z, labels, 10))
    gone = class_radius(torch.full_like(z, 0.3), labels, 10)
    assert (gone.per_dimension, gone.relative, gone.dimensions) == (0, 0, 0)


def test_unknown_labels_are_left_out() -> None:
    z, labels = clusters(30)
    half = torch.where(torch.arange(300) < 150, labels, -1)
    same(class_radius(z, half, 10), class_radius(z[:150], labels[:150], 10))


def test_relative_is_one_for_labels_of_nothing_and_zero_for_z_that_is_the_label() -> None:
    z, labels = clusters(20)
    shuffled = labels[torch.randperm(len(labels), generator=draws(9))]
    assert class_radius(z, shuffled, 10).relative == pytest.approx(1, abs=0.05)
    assert class_radius(torch.eye(10)[labels], labels, 10).relative == pytest.approx(0, abs=1e-12)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    held = []
    for seed in range(100):
        z, labels = clusters(40, classes=4, shape=(6,), seed=10 * seed)
        low, high = class_radius(z, labels, 4, standardise=False, resamples=300, seed=seed).per_dimension_interval
        held.append(low < 0.25 < high)
    assert 0.88 <= sum(held) / 100 <= 0.99


def test_the_interval_repeats_with_its_seed_and_holds_the_value() -> None:
    z, labels = clusters(25)
    a, b, c = (class_radius(z, labels, 10, seed=s) for s in (1, 1, 2))
    assert a.per_dimension_interval == b.per_dimension_interval != c.per_dimension_interval
    for value, (low, high) in ((a.per_dimension, a.per_dimension_interval), (a.relative, a.relative_interval)):
        assert 0.9 * value < low < value < high < 1.1 * value
    assert all(math.isnan(end) for end in class_radius(z, labels, 10, resamples=0).relative_interval)


def test_clusters_are_found_without_labels() -> None:
    z, labels = clusters(40, classes=5, sigma=0.2)
    found, known = cluster_radius(z, 5), class_radius(z, labels, 5)
    assert found.relative == pytest.approx(known.relative, rel=1e-6)
    assert sorted(found.counts.tolist()) == [40] * 5
    assert cluster_radius(10 * z, 5).relative == pytest.approx(found.relative, rel=1e-5)
    assert cluster_radius(torch.randn(200, 8, 2, 2, generator=draws()), 5).relative > 10 * found.relative
    assert cluster_radius(torch.ones(10, 4), 3).relative == 0


def test_bounds_of_a_gaussian_are_its_entropy() -> None:
    def entropy(variance: float) -> float:
        eye = torch.eye(6, dtype=torch.float64)
        return float(MultivariateNormal(torch.zeros(6, dtype=torch.float64), variance * eye).entropy())

    z, labels = clusters(500, shape=(6,))
    found = class_radius(z, labels, 10, standardise=False)
    bounds = h_bounds(found)
    assert bounds.decision == pytest.approx(entropy(0.25), abs=0.1)
    assert bounds.feature == pytest.approx(entropy(found.total), abs=1e-9)
    assert h_bounds(replace(found, per_dimension=0.0)).decision == -math.inf
    assert h_bounds(replace(found, dimensions=0)).feature == 0


@pytest.mark.parametrize("step", [1, 4, 16, 64, 256])
def test_the_conditional_entropy_bound_holds_and_is_near(step: int) -> None:
    """x uniform on 256 levels, z = x in steps: H(x | z) = ln(step)."""
    variance = (256**2 - step**2) / 12 + step**2 / 12
    h = 0.5 * math.log(2 * math.pi * math.e * variance)
    bound = conditional_entropy_bound(math.log(256), h, quantisation_constant(step, 1))
    assert 0 <= bound <= math.log(step) + 1e-12
    assert bound == pytest.approx(max(0, math.log(step) - 0.5 * math.log(2 * math.pi * math.e / 12)))


def test_the_conditional_entropy_bound_knows_its_ends() -> None:
    assert conditional_entropy_bound(5, 3, math.inf) == 0
    assert conditional_entropy_bound(5, -math.inf, 2) == 5
    assert conditional_entropy_bound(5, 3, 1) == 1
    a, b = (h * 0.5 * math.log(10.0) for h in (0, 2))
    same_codes = [conditional_entropy_bound(9, a + 3, quantisation_constant(0.1, 1)),
                  conditional_entropy_bound(9, b + 3, quantisation_constant(1.0, 1))]  # fmt: skip
    assert same_codes[0] == pytest.approx(same_codes[1])


def test_a_channel_of_rounding_noise_adds_nothing_to_what_crosses() -> None:
    z, labels = torch.randn(500, 4, 3, 3, generator=draws(1)), torch.arange(500) % 5
    live = crossing_bound(z, class_radius(z, labels, 5), math.log(5), bits=8)
    assert live[1] == pytest.approx(
        -9 * sum(math.log((c.max() - c.min()) / 255 / c.std()) for c in z.movedim(1, 0)), rel=1e-5
    )
    for odd in (torch.full_like(z[:, :1], 0.3), 0.3 + 1e-7 * torch.randn(500, 1, 3, 3, generator=draws(2))):
        wider = torch.cat([z, odd], 1)
        assert crossing_bound(wider, class_radius(wider, labels, 5), math.log(5), bits=8) == pytest.approx(live)


def test_drops_are_relative() -> None:
    assert drops([4, 2, 3, 0, 0, 1]) == (0.5, -0.5, 1, 0, -math.inf)
    assert drops([1]) == ()


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1, 0.95, 0.2, 0.18], (2,)),  # one fall: the first cut after it, not the last before
        ([1, 0.4, 0.38, 0.1], (3,)),  # two falls, calm between: the larger
        ([1, 0.4, 0.3, 0.1], (1, 3)),  # two falls and a change of a quarter between them
        ([1, 0.4, 0.6, 0.1], (1, 3)),  # a rise counts as a change
        ([1, 0.9, 0.82, 0.75], None),  # slow decay: no zone
        ([0.1, 0.5, 0.6, 0.9], None),
        ([0.7], None),
        ([], None),
    ],
)
def test_transition_names_the_cuts_themselves(values: list[float], found: tuple[int, ...] | None) -> None:
    assert transition(values) == found
    assert transition([100 * v for v in values]) == found


def test_transition_thresholds() -> None:
    assert transition([1, 0.9, 0.8], least=0.1) == (2,)
    assert transition([1, 0.4, 0.3, 0.1], second=0.5) == (3,)
    assert transition([1, 0.4, 0.7, 0.65], second=0.2) == (1,)


def test_effective_rank_counts_equal_directions() -> None:
    basis = torch.linalg.qr(torch.randn(40, 40, generator=draws())).Q
    assert effective_rank(torch.cat([basis[:7], -basis[:7]])) == pytest.approx(7, abs=1e-4)
    assert effective_rank(torch.cat([basis[:7], -basis[:7]])[:, :, None, None]) == pytest.approx(7, abs=1e-4)
    assert effective_rank(torch.full((9, 5), 0.3)) == 0


@pytest.mark.parametrize("shape", [(50, 12), (12, 50), (20, 3, 4, 4)])
def test_effective_rank_is_roy_and_vetterlis(shape: tuple[int, ...]) -> None:
    z = torch.randn(shape, generator=draws()) * torch.linspace(0.1, 2, shape[-1]) + 4
    rows = z.flatten(1).double()
    shares = torch.linalg.svdvals(rows - rows.mean(0))
    shares = shares / shares.sum()
    known = math.exp(-float(torch.special.xlogy(shares, shares).sum()))
    assert effective_rank(z) == pytest.approx(known, rel=1e-4)
    assert effective_rank(10 * z[torch.randperm(len(z), generator=draws(1))]) == pytest.approx(known, rel=1e-4)


def test_spectral_rank_is_per_row() -> None:
    found = spectral_rank(torch.tensor([[1.0, 1, 0], [2, 2, 2], [0, 0, 0]]))
    assert found.tolist() == pytest.approx([2, 3, 0])


def test_bad_input_names_the_remedy() -> None:
    z, labels = clusters(5)
    with pytest.raises(InputError, match="one label for each image"):
        class_radius(z, labels[:-1], 10)
    with pytest.raises(InputError, match="one label for each image"):
        class_radius([z, z[:, :3]], torch.cat([labels, labels]), 10)
    with pytest.raises(InputError, match="the number of classes"):
        class_radius(z, labels, 9)
    with pytest.raises(InputError, match="more images"):
        class_radius(z, labels, 10, least=6)
    with pytest.raises(InputError, match="more images"):
        cluster_radius(z, 26)
    with pytest.raises(InputError, match="of each cut"):
        transition([1, math.nan])
    with pytest.raises(InputError, match="the codec's step"):
        quantisation_constant(0, 4)
