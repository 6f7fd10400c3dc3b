import numpy as np
import pytest
import torch
from scipy import stats

from splitveil.lab.auditing.intervals import bootstrap
from splitveil.lab.auditing.summary import STUDENT, estimate


def test_the_bootstrap_agrees_with_another_one() -> None:
    values = torch.from_numpy(np.random.default_rng(0).gamma(2, 3, 80))
    expected = stats.bootstrap(
        (values.numpy(),), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    ((low, high), same) = bootstrap(torch.stack([values, values]))
    assert (low, high) == same
    assert low == pytest.approx(expected.low, abs=0.15)
    assert high == pytest.approx(expected.high, abs=0.15)


def test_it_is_the_same_each_time_and_narrows_with_more_images() -> None:
    values = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    ((low, high),), ((few_low, few_high),) = bootstrap(values, 3), bootstrap(values[:, :40], 3)
    assert bootstrap(values, 3) == [(low, high)]
    assert 7 < (few_high - few_low) / (high - low) < 14
    assert bootstrap(torch.full((1, 1), 2.0)) == [(2.0, 2.0)]


def test_intervals_over_seeds_are_students() -> None:
    assert pytest.approx([stats.t.ppf(0.975, k) for k in range(1, 31)], abs=6e-4) == list(STUDENT)
    values = [20.1, 20.9, 19.7]
    found, expected = estimate(values), stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert found.mean == pytest.approx(np.mean(values))
    assert found.interval == pytest.approx(expected, rel=1e-3)
    assert estimate([3.0]).interval is None
