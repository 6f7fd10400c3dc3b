from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from splitveil.core.errors import DataError, OverlapError
from splitveil.lab.data import Dataset, Images, load_data
from splitveil.lab.data.base import Array
from splitveil.lab.data.parts import partition


def images(n: int, seed: int, shape: tuple[int, int, int] = (1, 8, 8)) -> Images:
    return Images(np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8), np.arange(n) % 4)


def toy(train: int = 700, test: int = 900, seed: int = 0, shape: tuple[int, int, int] = (1, 8, 8)) -> Dataset:
    return Dataset("toy", images(train, seed, shape), images(test, seed + 1, shape), tuple("abcd"))


def pictures(x: Array) -> set[bytes]:
    return {image.tobytes() for image in x}


def test_aux_is_the_rest_of_the_test_part() -> None:
    data = toy()
    parts = partition(data, n=100, aux=None, max_aux=5000, seed=3)
    assert (len(parts.private), len(parts.aux)) == (100, 800)
    assert sorted([*parts.private_index, *parts.test_aux_index]) == list(range(900))
    assert len(parts.train_aux_index) == 0
    assert (parts.private.x == data.test.x[parts.private_index]).all()
    assert (parts.aux.x == data.test.x[parts.test_aux_index]).all()
    assert (parts.aux.y == data.test.y[parts.test_aux_index]).all()
    assert (parts.aux_index == parts.test_aux_index + 700).all()
    assert parts.aux_words == "800 test images of toy that are neither private nor in the training set"


def test_max_aux_is_kept() -> None:
    parts = partition(toy(), n=10, aux=None, max_aux=60, seed=3)
    assert (len(parts.aux), len(parts.train_aux_index)) == (60, 0)
    assert not set(parts.private_index) & set(parts.test_aux_index)


def test_few_test_images_are_topped_up_from_train_and_that_is_said() -> None:
    data = toy(test=300)
    parts = partition(data, n=100, aux=None, max_aux=5000, seed=3)
    assert (len(parts.test_aux_index), len(parts.train_aux_index)) == (200, 300)
    both = np.concatenate([data.test.x[parts.test_aux_index], data.train.x[parts.train_aux_index]])
    assert (parts.aux.x == both).all()
    assert (parts.aux.x == np.concatenate([data.train.x, data.test.x])[parts.aux_index]).all()
    assert parts.aux_words == "200 test images of toy that are not private and, as these are few, 300 training images"
    assert len(partition(data, n=100, aux=None, max_aux=250, seed=3).train_aux_index) == 50


def test_copies_of_private_images_are_left_out_and_counted() -> None:
    data = toy(test=300)
    first = partition(data, n=100, aux=None, max_aux=5000, seed=3)
    data.test.x[first.test_aux_index[:7]] = first.private.x[:7]
    data.train.x[:2] = first.private.x[0]
    parts = partition(data, n=100, aux=None, max_aux=5000, seed=3)
    assert (parts.private_index == first.private_index).all()
    assert not pictures(parts.private.x) & pictures(parts.aux.x)
    assert (len(parts.test_aux_index), len(parts.train_aux_index)) == (193, 307)
    assert parts.aux_words.endswith("(9 copies of private images left out)")


def test_seed_decides_and_more_private_images_keep_the_first() -> None:
    data = toy()
    one, same, other = (partition(data, n=20, aux=None, max_aux=50, seed=s) for s in (1, 1, 2))
    assert (one.private_index == same.private_index).all()
    assert (one.aux_index == same.aux_index).all()
    assert (one.private_index != other.private_index).any()
    assert (partition(data, n=30, aux=None, max_aux=50, seed=1).private_index[:20] == one.private_index).all()


def test_a_foreign_set_is_brought_to_the_models_shape() -> None:
    foreign = Dataset("cars", images(30, 5, (3, 12, 10)), images(20, 6, (3, 12, 10)), tuple("abcd"))
    parts = partition(toy(), n=50, aux=foreign, max_aux=5000, seed=3)
    assert parts.aux.x.shape == (50, 1, 8, 8)
    assert sorted(parts.aux_index) == list(range(50))
    assert (parts.aux.y == np.concatenate([foreign.train.y, foreign.test.y])[parts.aux_index]).all()
    assert len(parts.test_aux_index) == len(parts.train_aux_index) == 0
    assert parts.aux_words == "50 images of cars, none of which is private"
    assert len(partition(toy(), n=50, aux=foreign, max_aux=12, seed=3).aux) == 12


def marked(data: Dataset, name: str) -> Dataset:
    """With the first pixel of each image as an attribute."""
    train, test = (replace(p, attributes={name: p.x[:, 0, 0, 0].astype(np.int64)}) for p in (data.train, data.test))
    return replace(data, train=train, test=test)


def test_attributes_go_with_the_images() -> None:
    parts = partition(marked(toy(test=300), "body"), n=100, aux=None, max_aux=5000, seed=3)
    assert len(parts.train_aux_index) == 300
    for images in (parts.private, parts.aux):
        assert (images.attributes["body"] == images.x[:, 0, 0, 0]).all()
    parts = partition(marked(toy(), "body"), n=100, aux=marked(toy(seed=9), "paint"), max_aux=50, seed=3)
    assert (list(parts.private.attributes), list(parts.aux.attributes)) == (["body"], ["paint"])
    assert (parts.aux.attributes["paint"] == parts.aux.x[:, 0, 0, 0]).all()


def test_a_foreign_set_with_private_images_is_refused() -> None:
    data, foreign = toy(), toy(seed=9)
    private = partition(data, n=50, aux=None, max_aux=10, seed=3).private
    foreign.train.x[:3] = private.x[4]
    with pytest.raises(OverlapError) as caught:
        partition(data, n=50, aux=foreign, max_aux=1, seed=3)
    assert str(caught.value) == (
        "3 images of toy are copies of private images of toy; take them out, or leave the auxiliary set out."
    )
    assert caught.value.exit_code == 2
    with pytest.raises(OverlapError, match="50 images"):
        partition(data, n=50, aux=data, max_aux=10, seed=3)


@pytest.mark.parametrize(
    ("n", "max_aux", "sentence"),
    [
        (901, 10, "expected at most 900 private images, the test part of toy, got 901; ask for fewer, with -n."),
        (0, 10, "expected at least one private and one auxiliary image, got 0 and 10; ask for more."),
        (10, 0, "expected at least one private and one auxiliary image, got 10 and 0; ask for more."),
    ],
)
def test_impossible_numbers(n: int, max_aux: int, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        partition(toy(), n=n, aux=None, max_aux=max_aux, seed=0)
    assert str(caught.value) == sentence


def test_auxiliary_images_are_brought_to_an_oblong_shape() -> None:
    parts = partition(toy(shape=(1, 8, 6)), n=5, aux=toy(), max_aux=10, seed=0)
    assert parts.aux.x.shape == (10, 1, 8, 6)


def test_no_images_left_for_the_adversary() -> None:
    one = images(1, 0)
    with pytest.raises(DataError, match="toy has no image left for the adversary; lower the number of private images"):
        partition(Dataset("toy", one, one, tuple("abcd")), n=1, aux=None, max_aux=10, seed=0)


def test_real_sets(real_data: Callable[[str], Path]) -> None:
    mini = load_data(f"npz:{real_data('cifar10_mini.npz')}")
    parts = partition(mini, n=50, aux=load_data("digits?n=50"), max_aux=300, seed=0)
    assert parts.aux.x.shape == (300, 3, 32, 32)
    own = partition(mini, n=50, aux=None, max_aux=400, seed=0)
    assert (len(own.test_aux_index), len(own.train_aux_index)) == (150, 250)
    assert not pictures(own.private.x) & pictures(own.aux.x)
