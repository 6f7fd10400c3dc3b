import numpy as np
import pytest

from splitveil.core.errors import DataError, UnknownNameError
from splitveil.lab.data import DATA, load_data


def test_digits_are_the_real_ones() -> None:
    from sklearn.datasets import load_digits

    data = load_data("digits")
    assert (data.shape, len(data.train), len(data.test)) == ((1, 8, 8), 1197, 600)
    assert data.classes == tuple("0123456789")
    own = {x.tobytes() for part in (data.train, data.test) for x in np.round(part.x[:, 0] / 255 * 16)}
    assert own == {x.tobytes() for x in load_digits().images}
    assert data.train.x.max() == 255
    assert np.ptp(np.bincount(data.test.y) / np.bincount(data.train.y)) < 0.03


def test_digits_are_split_alike_every_time() -> None:
    one, two = load_data("digits"), load_data("digits")
    assert (one.test.x == two.test.x).all()
    assert (one.train.y == two.train.y).all()


def test_n_size_and_channels_are_applied() -> None:
    data = load_data("digits?n=100&size=16&channels=3")
    assert (data.name, data.shape) == ("digits?size=16&n=100&channels=3", (3, 16, 16))
    assert (len(data.train), len(data.test)) == (100, 600)
    assert np.bincount(data.train.y).tolist() == pytest.approx([10] * 10, abs=1)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("digits?n=5000", "digits has 1,197 training images, got n=5000; lower n."),
        ("digits:here", "data set 'digits' takes no path, got here; write digits alone."),
        ("npz", "data set 'npz' needs a path; write npz:PATH."),
        ("folder", "data set 'folder' needs a path; write folder:PATH."),
    ],
)
def test_mistakes_are_explained(spec: str, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        load_data(spec)
    assert str(caught.value) == sentence


def test_unknown_names_give_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown data 'digit'\. Did you mean 'digits'"):
        load_data("digit")
    with pytest.raises(UnknownNameError, match=r"For a file write npz:cifar.npz\.$"):
        load_data("cifar.npz")


def test_every_source_says_what_it_is() -> None:
    assert [name for name, words in DATA.describe() if len(words) < 20] == []
    known = ["digits", "npz", "folder", "mnist", "fashion-mnist", "cifar10", "cifar100", "vehicles", "reid"]
    assert DATA.names() == known


@pytest.mark.parametrize("spec", ["digits?size=12x6", "digits?size=6x12&channels=3", "digits?n=50&size=7x8"])
def test_arrays_become_rectangles_and_say_that_they_are_arrays(spec: str) -> None:
    data = load_data(spec)
    width, height = (int(side) for side in spec.partition("size=")[2].partition("&")[0].split("x"))
    assert data.shape[1:] == (height, width)
    assert data.picture is not None
    assert (data.picture.source, data.picture.size) == ("arrays", (width, height))
