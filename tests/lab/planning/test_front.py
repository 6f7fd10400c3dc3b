import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from splitveil.lab.planning.front import gains, hypervolume, undominated


def test_the_front_keeps_equal_points_and_drops_what_is_beaten() -> None:
    points = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    assert undominated(points).tolist() == [True, True, False, True]


def test_known_volumes() -> None:
    assert hypervolume(np.array([[0.5, 0.5]]), np.ones(2)) == 0.25
    assert hypervolume(np.array([[0.0, 0.5], [0.5, 0.0], [0.6, 0.6]]), np.ones(2)) == 0.75
    assert hypervolume(np.array([[0.5, 0.5, 0.5]]), np.ones(3)) == 0.125
    assert hypervolume(np.array([[2.0, 0.0]]), np.ones(2)) == 0.0
    assert hypervolume(np.zeros((0, 3)), np.ones(3)) == 0.0


@settings(max_examples=20, deadline=None)
@given(arrays(np.float64, (5, 3), elements=st.floats(0, 1, width=32)))
def test_volume_agrees_with_counting_points(points: "np.ndarray[tuple[int, int], np.dtype[np.float64]]") -> None:
    draws = np.random.default_rng(0).random((4_000, 3))
    counted = np.mean([bool((points <= draw).all(1).any()) for draw in draws])
    assert hypervolume(points, np.ones(3)) == pytest.approx(counted, abs=0.04)


def test_gains_are_what_a_point_adds() -> None:
    known = np.array([[0.0, 0.5]])
    found = gains(known, np.array([[0.5, 0.0], [0.2, 0.6], [0.0, 0.5]]), 0)
    assert found[0] == pytest.approx(0.25, abs=0.03)
    assert found[1:].tolist() == [0.0, 0.0]
