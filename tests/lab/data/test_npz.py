from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitveil.core.errors import DataError
from splitveil.lab.data import load_data
from splitveil.lab.data.base import Array

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (10, 3, 6, 5), dtype=np.uint8)
Y = np.arange(10) % 2


def saved(path: Path, **arrays: Any) -> str:
    np.savez(path / "toy.npz", **arrays)
    return f"npz:{path / 'toy.npz'}"


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (X, X),
        (X.transpose(0, 2, 3, 1), X),
        (X[:, 0], X[:, :1]),
        (X[:, :1].transpose(0, 2, 3, 1), X[:, :1]),
        ((X / 255).astype(np.float32), X),
    ],
    ids=["NCHW", "NHWC", "NHW", "NHW1", "float"],
)
def test_layouts_and_types(tmp_path: Path, x: Array, expected: Array) -> None:
    data = load_data(saved(tmp_path, x_train=x, y_train=Y[:, None].astype(np.uint8), x_test=x[:4], y_test=Y[:4]))
    assert (data.train.x == expected).all()
    assert data.train.x.flags.c_contiguous
    assert (data.test.x == expected[:4]).all()
    assert data.train.y.tolist() == Y.tolist()
    assert (data.name, data.classes) == ("npz:toy.npz", ("0", "1"))


def test_class_names_are_used_when_they_are_strings(tmp_path: Path) -> None:
    spec = saved(tmp_path, x_train=X, y_train=Y, x_test=X, y_test=Y, classes=np.array(["cat", "dog"]))
    assert load_data(spec).classes == ("cat", "dog")
    assert load_data(saved(tmp_path, x_train=X, y_train=Y, classes=np.array([7, 8]))).classes == ("0", "1")


def test_whole_numbers_with_one_an_image_are_attributes(tmp_path: Path) -> None:
    spec = saved(
        tmp_path, x_train=X, y_train=Y, x_test=X[:4], y_test=Y[:4], body_train=(Y[:, None] + 3).astype(np.uint8),
        body_test=np.array([3, 4, 4, -1]), smiling_train=Y == 1, smiling_test=Y[:4] == 0, index_train=np.arange(10),
        index_test=np.array([7, 7, 8, 8]), box_train=np.ones((10, 4), int), name_train=np.array(["a"] * 10),
        note_train=np.array([None] * 10), bodies=np.array(["van", "car"]), shot=Y,
    )  # fmt: skip
    data = load_data(spec)
    found = {k: v.tolist() for k, v in data.test.attributes.items()}
    assert found == {"body": [3, 4, 4, -1], "smiling": [1, 0, 1, 0]}
    assert data.train.attributes["body"].tolist() == (Y + 3).tolist()
    assert all(v.dtype == np.int64 for v in data.train.attributes.values())


def test_attributes_stay_with_their_images_through_split_and_subset(tmp_path: Path) -> None:
    marks = X[:, 0, 0, 0] // 64
    arrays = {"x_train": X, "y_train": Y, "shot": marks, "colour_train": marks, "palette": np.arange(3)}
    for query in ("", "?n=5"):
        data = load_data(saved(tmp_path, **arrays) + query)
        for part in (data.train, data.test):
            assert sorted(part.attributes) == ["colour", "shot"]
            assert all((values == part.x[:, 0, 0, 0] // 64).all() for values in part.attributes.values())
    shrunk = load_data(saved(tmp_path, **arrays) + "?size=4&channels=1")
    assert (shrunk.test.attributes["shot"] == data.test.attributes["shot"]).all()


def test_attributes_of_another_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="10 images but 9 values of attribute body"):
        load_data(saved(tmp_path, x_train=X, y_train=Y, body_train=Y[:9]))
    spec = saved(tmp_path, x_train=X, y_train=Y, x_test=X, y_test=Y, body_train=Y[:9], body_test=Y)
    with pytest.raises(DataError, match="train has 10 images but 9 values of attribute body; mend"):
        load_data(spec)
    with pytest.raises(DataError, match="train images have the attributes body, test images none"):
        load_data(saved(tmp_path, x_train=X, y_train=Y, x_test=X, y_test=Y, body_train=Y))


def test_a_fifth_is_split_off_where_there_is_no_test_part(tmp_path: Path) -> None:
    data = load_data(saved(tmp_path, x_train=X, y_train=Y))
    assert (len(data.train), sorted(data.test.y.tolist())) == (8, [0, 1])
    both = np.concatenate([data.train.x, data.test.x])
    assert {x.tobytes() for x in both} == {x.tobytes() for x in X}


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x_train": X[:, :, :, :3], "y_train": Y}, "cannot tell channels from pixels in x_train (10, 3, 6, 3);"),
        ({"x_train": np.repeat(X, 2, 1), "y_train": Y}, "1 or 3 channels second or last in x_train, got (10, 6, 6, 5)"),
        ({"x_train": X[0, 0], "y_train": Y}, "expected (N, H, W), (N, H, W, C) or (N, C, H, W) in x_train, got (6, 5)"),
        ({"x_train": X.astype(np.int64), "y_train": Y}, "in x_train, got int64; convert it with astype('uint8')."),
        ({"x_train": X.astype(np.uint16) * 257, "y_train": Y}, "got uint16; it runs from 0 to"),
        ({"x_train": X > 9, "y_train": Y}, "in x_train, got bool; convert it with astype('float32')."),
        ({"x_train": X / 127.5 - 1, "y_train": Y}, "in x_train, got floats -1.0 to 1.0; rescale them."),
        ({"x_train": X * np.nan, "y_train": Y}, "in x_train, got floats nan to nan; rescale them."),
        ({"x_train": X, "y_train": np.eye(2)[Y]}, "got float64 (10, 2); take its argmax over axis 1."),
        ({"x_train": X, "y_train": Y / 2}, "in y_train, got float64 (10,); save class numbers from 0."),
        ({"x_train": X, "y_train": Y[:9]}, "10 images but 9 labels"),
        (
            {"x_train": X, "y_train": Y, "x_test": X},
            "has no y_test, it holds x_train, y_train, x_test; name the",
        ),
        ({"x_train": X, "y_train": Y, "classes": np.array(["only"])}, "labels run from 0 to 1, expected 0 to 0"),
        (
            {"x_train": X, "y_train": np.array([None] * 10)},
            "is not a whole NumPy archive of plain arrays (Object",
        ),
    ],
)
def test_unusable_archives_are_explained(tmp_path: Path, arrays: dict[str, Array], sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        load_data(saved(tmp_path, **arrays))
    assert sentence in str(caught.value)


def test_missing_keys_are_named_with_those_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no x_train and no y_train, it holds images; name the arrays x_train,"):
        load_data(saved(tmp_path, images=X))


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*gone.npz: no such file; check the path\."):
        load_data(f"npz:{tmp_path / 'gone.npz'}")
    np.save(tmp_path / "single.npy", X)
    with pytest.raises(DataError, match=r"single.npy holds a single array; save an archive with numpy.savez"):
        load_data(f"npz:{tmp_path / 'single.npy'}")
    whole = Path(saved(tmp_path, x_train=X, y_train=Y).removeprefix("npz:"))
    for damaged in (b"", b"no zip at all", whole.read_bytes()[:200]):
        (tmp_path / "cut.npz").write_bytes(damaged)
        with pytest.raises(
            DataError, match=r"cut.npz is not a whole NumPy archive of plain .*; write it anew\."
        ) as told:
            load_data(f"npz:{tmp_path / 'cut.npz'}")
        assert "pickle" not in str(told.value)


def test_images_in_0_to_1_as_whole_numbers_are_told(tmp_path: Path) -> None:
    data = load_data(saved(tmp_path, x_train=(X > 9).astype(np.uint8), y_train=Y))
    assert data.remarks == (
        "no pixel is brighter than 1 of 255: images in [0, 1] belong there as floats, all others up to 255",
    )


def test_real_cifar(real_data: Callable[[str], Path]) -> None:
    data = load_data(f"npz:{real_data('cifar10_mini.npz')}")
    assert (data.shape, len(data.train), len(data.test)) == ((3, 32, 32), 500, 200)
    assert data.classes[0] == "airplane"
    assert np.bincount(data.test.y).tolist() == [20] * 10
    assert data.train.x.mean((0, 2, 3)) / 255 == pytest.approx([0.491, 0.482, 0.447], abs=0.02)


def test_real_faces_are_split_by_person_and_cropped(real_data: Callable[[str], Path]) -> None:
    data = load_data(f"npz:{real_data('orl_faces.npz')}?size=32")
    assert (data.shape, len(data.train), len(data.test)) == ((1, 32, 32), 320, 80)
    assert np.bincount(data.test.y).tolist() == [2] * 40
