import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from splitveil.device.noise import standard_normal

from .conftest import SOURCE

N = 400_000


def test_moments_are_those_of_a_standard_normal() -> None:
    values = standard_normal((N,)).astype(np.float64)
    errors = {
        "mean": values.mean() / np.sqrt(1 / N),
        "variance": (np.mean(values**2) - 1) / np.sqrt(2 / N),
        "skewness": np.mean(values**3) / np.sqrt(15 / N),
        "kurtosis": (np.mean(values**4) - 3) / np.sqrt(96 / N),
    }
    assert {name: e for name, e in errors.items() if abs(e) > 5} == {}


def test_quantiles_match() -> None:
    values = np.sort(standard_normal((N,)))
    for quantile, expected in ((0.5, 0.0), (0.8413447, 1.0), (0.9772499, 2.0), (0.0013499, -3.0)):
        assert values[int(quantile * N)] == pytest.approx(expected, abs=0.05)


def test_values_are_independent_of_each_other() -> None:
    values = standard_normal((N,)).astype(np.float64)
    for lag in (1, 2, N // 2):
        for one in (values, values**2 - 1):
            assert abs(np.mean(one[:-lag] * one[lag:])) < 5 * np.mean(one**2) / np.sqrt(N - lag)


@pytest.mark.parametrize("shape", [(1,), (3, 5, 7), (2, 8, 4, 4)])
def test_shape_and_type(shape: tuple[int, ...]) -> None:
    values = standard_normal(shape)
    assert values.shape == shape
    assert values.dtype == np.float32


def test_extreme_bits_stay_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    for byte in (b"\x00", b"\xff"):
        monkeypatch.setattr("os.urandom", lambda n, byte=byte: byte * n)
        assert np.isfinite(standard_normal((8,))).all()


def test_no_seed_repeats_it() -> None:
    np.random.seed(0)
    first = standard_normal((64,))
    np.random.seed(0)
    assert not np.array_equal(first, standard_normal((64,)))


def test_the_distribution_is_that_of_a_standard_normal() -> None:
    assert stats.kstest(standard_normal((N,)).astype(np.float64), "norm").pvalue > 1e-5


def test_two_processes_share_nothing() -> None:
    """Started alike, with the same hash seed: what a seeded generator would draw twice."""
    program = "from splitveil.device.noise import standard_normal; print(standard_normal((16,)).tobytes().hex())"
    environment = {"PYTHONPATH": SOURCE, "PATH": "", "PYTHONHASHSEED": "0"}
    drawn = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60, check=True
        ).stdout.strip()
        for _ in range(2)
    ]
    assert len(drawn[0]) == 16 * 4 * 2
    assert not {one[i : i + 8] for one in drawn[:1] for i in range(0, 128, 8)} & {
        drawn[1][i : i + 8] for i in range(0, 128, 8)
    }


def test_noise_is_made_of_the_operating_systems_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of nothing else: the same bytes give the same noise, four of them each value."""
    asked: list[int] = []

    def fixed(n: int) -> bytes:
        asked.append(n)
        return bytes(range(256))[:n]

    monkeypatch.setattr("os.urandom", fixed)
    np.testing.assert_array_equal(standard_normal((8,)), standard_normal((8,)))
    assert asked == [32, 32]
