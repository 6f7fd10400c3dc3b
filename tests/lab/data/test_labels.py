"""Labels as people write them."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitveil.core.errors import DataError
from splitveil.lab.data import load_data
from splitveil.lab.data.base import Array

X = np.random.default_rng(0).integers(0, 256, (10, 3, 6, 5), dtype=np.uint8)
Y = np.arange(10) % 2


def saved(path: Path, **arrays: Any) -> str:
    np.savez(path / "toy.npz", **arrays)
    return f"npz:{path / 'toy.npz'}"


@pytest.mark.parametrize("label", [20240131, 2_000_000_000, 2**40, 2024])
def test_labels_far_beyond_the_number_of_images_are_refused_at_once(tmp_path: Path, label: int) -> None:
    y = Y.copy()
    y[3] = label
    begun = time.monotonic()
    with pytest.raises(DataError, match=rf"has the label {label} among 10 images, .*array of strings called classes\."):
        load_data(saved(tmp_path, x_train=X, y_train=y))
    with pytest.raises(DataError, match=rf"has the label {label} among 14 images"):
        load_data(saved(tmp_path, x_train=X, y_train=Y, x_test=X[:4], y_test=y[:4]))
    assert time.monotonic() - begun < 2


def test_many_classes_are_taken_where_they_are_named_or_plausible(tmp_path: Path) -> None:
    y = Y.copy()
    y[3] = 1999
    names = np.array([f"class {k}" for k in range(2000)])
    data = load_data(saved(tmp_path, x_train=X, y_train=y, x_test=X, y_test=y, classes=names))
    assert len(data.classes) == 2000
    y[3] = 999  # ten images of ImageNet
    data = load_data(saved(tmp_path, x_train=X, y_train=y, x_test=X, y_test=y))
    assert len(data.classes) == 1000
    assert data.remarks == ("997 of 1,000 classes have no training image (2, 3, 4, 5, 6, ...)",)


@pytest.mark.parametrize(
    "y",
    [Y.astype(float), Y.astype(np.float16)[:, None], Y == 1, Y.astype(np.uint8), Y.astype(np.uint64), Y[:, None]],
    ids=["float", "half column", "bool", "uint8", "uint64", "column"],
)
def test_whole_numbers_of_any_type_are_read(tmp_path: Path, y: Array) -> None:
    data = load_data(saved(tmp_path, x_train=X, y_train=y, x_test=X, y_test=y))
    assert data.train.y.tolist() == data.test.y.tolist() == Y.tolist()
    assert data.classes == ("0", "1")


@pytest.mark.parametrize(
    "y", [np.where(Y, "dog", "cat"), np.where(Y, "dog", "cat")[:, None], np.where(Y, b"dog", b"cat")]
)
def test_labels_may_be_names(tmp_path: Path, y: Array) -> None:
    data = load_data(saved(tmp_path, x_train=X, y_train=y, x_test=X[:4], y_test=y[:4]))
    assert (data.classes, data.train.y.tolist(), data.test.y.tolist()) == (("cat", "dog"), Y.tolist(), Y[:4].tolist())
    data = load_data(saved(tmp_path, x_train=X, y_train=y, classes=np.array(["emu", "dog", "cat"])))
    assert data.classes == ("emu", "dog", "cat")
    assert set(data.train.y.tolist()) == {1, 2}
    with pytest.raises(DataError, match="labels are not among the classes of the file: cat; add them to classes"):
        load_data(saved(tmp_path, x_train=X, y_train=y, classes=np.array(["emu", "dog"])))


@pytest.mark.parametrize(
    ("y", "sentence"),
    [
        (Y - 1, "expected class numbers from 0 in y_train, got -1 to 0; number the classes from 0"),
        (Y * -20240131.0, "got -20240131 to 0"),
        (np.full(10, 2**64 - 1, np.uint64), "expected class numbers from 0 in y_train, got 18446744073709551615 to"),
        (np.where(Y, np.nan, 0), r"expected whole numbers \(N,\) or \(N, 1\) in y_train, got float64"),
        (np.where(Y, np.inf, 0), "expected whole numbers"),
        (Y + 0.25, "expected whole numbers"),
        (Y * 1j, "expected whole numbers .* got complex128"),
        (np.zeros((10, 2, 2), int), "expected whole numbers"),
        (np.array(3), "expected whole numbers"),
        (np.where(Y, b"caf\xe9", b"a"), r"expected text in UTF-8 in the labels, got b'caf\\xe9'; save it as strings"),
    ],
)
def test_other_labels_get_a_sentence(tmp_path: Path, y: Array, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        load_data(saved(tmp_path, x_train=X, y_train=y))


@pytest.mark.parametrize("name", ["a\nb", "bell\x07", "line\u2028"])
def test_names_that_no_table_can_hold_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="names are not UTF-8 or hold control characters: '"):
        load_data(saved(tmp_path, x_train=X, y_train=Y, classes=np.array(["a", name])))


def test_test_labels_that_training_lacks_are_said(tmp_path: Path) -> None:
    y = Y.copy()
    y[:3] = [2, 3, 3]
    assert load_data(saved(tmp_path, x_train=X, y_train=Y, x_test=X, y_test=y)).remarks == (
        "3 of 10 test images have labels that no training image has (2, 3): a model trained on these images cannot get "
        "them right",
        "2 of 4 classes have no training image (2, 3)",
    )
    assert load_data(saved(tmp_path, x_train=X, y_train=Y, x_test=X, y_test=Y)).remarks == ()
    assert load_data(saved(tmp_path, x_train=X, y_train=Y * 0, x_test=X, y_test=Y * 0)).remarks == (
        "all training images have one label (0)",
    )


def test_a_subset_may_lose_classes_and_it_is_said(tmp_path: Path) -> None:
    y = np.arange(10) // 2
    data = load_data(saved(tmp_path, x_train=X, y_train=y, x_test=X, y_test=y) + "?n=2")
    assert data.remarks[0].startswith("6 of 10 test images have labels that no training image has (")


def test_dates_are_no_attributes(tmp_path: Path) -> None:
    spec = saved(
        tmp_path,
        x_train=X,
        y_train=Y,
        x_test=X,
        y_test=Y,
        day_train=Y + 20240131,
        day_test=Y,
        body_train=Y,
        body_test=Y,
    )
    data = load_data(spec)
    assert sorted(data.train.attributes) == sorted(data.test.attributes) == ["body"]
    assert data.remarks == (
        "day is no attribute of the images, as 20240132 is far beyond their number; number its values from 0",
    )
