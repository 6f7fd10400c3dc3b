import numpy as np
import pytest

from splitveil.core.errors import DataError
from splitveil.lab.data.sampling import split_off_test, stratified, without


@pytest.mark.parametrize("n", [10, 37, 100, 249])
def test_every_class_has_its_share(n: int) -> None:
    y = np.repeat([0, 1, 2], [50, 150, 50])
    picked = stratified(y, n, seed=3)
    assert len(set(picked.tolist())) == n
    assert (np.diff(picked) > 0).all()
    share = np.bincount(y[picked], minlength=3)
    assert (np.abs(share - n * np.array([0.2, 0.6, 0.2])) <= 1).all()


def test_seed_decides() -> None:
    y = np.arange(100) % 5
    assert (stratified(y, 20, 1) == stratified(y, 20, 1)).all()
    assert (stratified(y, 20, 1) != stratified(y, 20, 2)).any()


def test_split_covers_all_once() -> None:
    train, test = split_off_test(np.arange(101) % 4, "toy")
    assert len(test) == 20
    assert sorted([*train, *test]) == list(range(101))


def test_a_single_image_cannot_be_split() -> None:
    with pytest.raises(DataError, match="at least two images in toy to split off a test part, got 1"):
        split_off_test(np.zeros(1, np.int64), "toy")


def test_without_is_the_complement() -> None:
    assert without(np.array([3, 0]), 5).tolist() == [1, 2, 4]
