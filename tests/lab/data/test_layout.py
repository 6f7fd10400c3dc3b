"""Folders as people arrange them: what is a part, what a class, what neither."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitveil.core.errors import DataError
from splitveil.lab.data import Dataset, load_data


def fill(root: Path, *folders: str, n: int = 2) -> None:
    """n pictures in each folder, all of them different."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            rng = np.random.default_rng([*f"{folder}{i}".encode()])
            Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(root / folder / f"{i}.png")


def read(root: Path) -> Dataset:
    return load_data(f"folder:{root}")


TWO = ("cat", "dog")
PAIRS = [
    ("Training", "Testing"), ("Train", "Test"), ("TRAIN", "TEST"), ("train", "valid"), ("train", "validation"),
    ("train", "VAL"), ("training_set", "test_set"), ("train", "dev"), ("Train", "eval"), ("trainset", "testset"),
]  # fmt: skip


@pytest.mark.parametrize(("train", "test"), PAIRS)
def test_parts_are_known_by_what_people_call_them(tmp_path: Path, train: str, test: str) -> None:
    fill(tmp_path, *(f"{train}/{name}" for name in TWO), n=3)
    fill(tmp_path, *(f"{test}/{name}" for name in TWO))
    data = read(tmp_path)
    assert (data.classes, data.train.y.tolist(), data.test.y.tolist()) == (TWO, [0] * 3 + [1] * 3, [0, 0, 1, 1])
    assert (f"the test part is {test!r}, as there is no test folder with classes" in data.remarks) == (
        test.lower() not in ("testing", "test", "test_set", "testset")
    )


def test_of_val_and_test_the_test_part_is_test_and_it_is_said(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{part}/{name}" for part in ("train", "val", "test", "extra") for name in TWO))
    data = read(tmp_path)
    assert (data.test.x[0] == np.asarray(Image.open(tmp_path / "test/cat/0.png")).transpose(2, 0, 1)).all()
    assert data.remarks == ("'val' beside 'train' is left out", "'extra' beside 'train' is left out")


def test_a_test_folder_without_labels_is_left_out_and_it_is_said(tmp_path: Path) -> None:
    fill(tmp_path, *(f"train/{name}" for name in TWO), "test", n=5)
    data = read(tmp_path)
    assert (len(data.train), len(data.test)) == (8, 2)
    assert data.remarks == ("'test' beside 'train' is left out: it has no class folders with pictures",)


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        (("Testing/cat", "Testing/dog", "cat", "dog"), "has Testing but no training part; put the class folders of"),
        (("test/cat", "val/cat"), "has test and val but no training part"),
        (("train/cat", "Train/cat"), "has several training parts, Train and train; keep one or join them"),
        (("train/cat", "training/cat"), "has several training parts, train and training; keep one"),
        (("train/cat", "test/cat", "Testing/cat"), "has several test parts, Testing and test; keep one"),
        (("train/cat", "val/cat", "valid/cat"), "has several validation parts, val and valid; keep one"),
        (("train",), "train holds no class folders with pictures; arrange them as train/CLASS/picture.png"),
        (("train", "test"), "train holds no class folders with pictures"),
        (("fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"), "fold1, fold2 in .* all hold the folders cat, dog"),
        (("photos/cat", "photos/dog"), "got the one folder 'photos' with folders in it; give folder:.*/photos"),
        (("photos/train/cat", "photos/test/cat"), "got the one folder 'photos' with folders in it"),
        (("train/Cat", "train/dog", "test/cat"), r"test has classes that .*train lacks: cat \(there it is Cat\); name"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_with_the_reason(
    tmp_path: Path, folders: tuple[str, ...], sentence: str
) -> None:
    fill(tmp_path, *folders)
    with pytest.raises(DataError, match=sentence):
        read(tmp_path)


def test_an_empty_second_spelling_does_not_matter(tmp_path: Path) -> None:
    fill(tmp_path, "Train/cat", "Train/dog", "test/cat")
    (tmp_path / "train").mkdir()
    assert read(tmp_path).classes == TWO


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    fill(tmp_path, "bus", "car", "train", n=5)
    assert read(tmp_path).classes == ("bus", "car", "train")
    fill(tmp_path / "parts", "train/bus", "train/train", "test/train")
    assert read(tmp_path / "parts").classes == ("bus", "train")


CLUTTER = (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git/objects", ".Trashes", "$RECYCLE.BIN", "__pycache__")


def test_hidden_folders_and_files_are_skipped_everywhere(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{part}/{name}" for part in ("train", "test") for name in TWO))
    clean = read(tmp_path)
    fill(
        tmp_path,
        *CLUTTER,
        *(f"train/{c}" for c in CLUTTER),
        *(f"{p}/cat/{c}" for p in ("train", "test") for c in CLUTTER),
    )
    fill(tmp_path, *(f"train/dog/inner/{c}/deeper" for c in CLUTTER))
    for name in ("._0.png", ".DS_Store", ".hidden.png"):
        (tmp_path / "train" / "cat" / name).write_bytes(b"no picture")
        (tmp_path / "train" / name).write_bytes(b"no picture")
    again = read(tmp_path)
    assert (again.classes, again.remarks) == (TWO, ())
    assert (again.train.x == clean.train.x).all()
    assert (again.test.x == clean.test.x).all()


def test_links_in_circles_end_and_hold_nothing(tmp_path: Path) -> None:
    fill(tmp_path, "train/cat", "train/dog")
    for place, target in {"train/cat/up": "..", "train/again": ".", "loop": ".", "train/top": "../.."}.items():
        (tmp_path / place).symlink_to(target, target_is_directory=True)
    (tmp_path / "train/cat/gone.png").symlink_to("nowhere.png")
    fill(tmp_path, "elsewhere/test/cat")
    (tmp_path / "test").symlink_to("elsewhere/test", target_is_directory=True)
    data = read(tmp_path)
    assert (data.classes, len(data.train), len(data.test)) == (TWO, 4, 2)


@pytest.mark.parametrize("name", [b"caf\xe9", b"a\nb", b"tab\there", b"esc\x1b[31m"])
def test_names_of_classes_that_no_file_can_hold_are_refused_when_read(tmp_path: Path, name: bytes) -> None:
    fill(tmp_path, "cat", "dog")
    os.mkdir(os.path.join(os.fsencode(tmp_path), name))
    (tmp_path / "cat" / "0.png").rename(tmp_path / os.fsdecode(name) / "0.png")
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert "expected names of class folders in UTF-8 and without control characters, got b'" in str(caught.value)
    assert "rename the folders." in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_set_whose_own_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"s\xe9t")
    fill(root, "cat", "dog")
    with pytest.raises(DataError, match="names are not UTF-8 or hold control characters"):
        read(root)


def test_files_may_have_any_name(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog", n=5)
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / os.fsdecode(b"caf\xe9\n.png"))
    assert len(read(tmp_path).train) == 8


def test_accents_may_be_written_in_two_ways(tmp_path: Path) -> None:
    fill(tmp_path, "train/cafe\u0301", "train/dog", "test/caf\u00e9")
    assert read(tmp_path).test.y.tolist() == [0, 0]


def test_what_is_read_otherwise_than_one_may_think_is_said(tmp_path: Path) -> None:
    fill(tmp_path, ".", "animals/cat", "animals/dog", "cars", "Cars", n=3)
    data = read(tmp_path)
    assert data.classes == ("Cars", "animals", "cars")
    assert data.remarks == (
        f"3 pictures directly in {tmp_path.name!r}, in no class folder, are left out",
        "pictures in folders below a class folder count for that class: animals/cat, animals/dog",
        "class folders whose names differ in case only are different classes: Cars, cars",
    )


def test_test_classes_need_not_be_complete(tmp_path: Path) -> None:
    fill(tmp_path, "train/cat", "train/dog", "train/emu", "test/emu")
    assert read(tmp_path).remarks == ()


def test_photos_that_cannot_be_read_are_named_and_not_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, *TWO, n=5)
    (tmp_path / "cat/phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "dog/gone.jpg").symlink_to(tmp_path / "unmounted.jpg")
    with pytest.raises(DataError, match=r"cannot read the picture .*--skip-broken goes on without it") as caught:
        read(tmp_path)
    assert "phone.HEIC (no picture that Pillow knows" in str(caught.value)
    assert "convert it to JPEG or PNG" in str(caught.value)
    kept = load_data(f"folder:{tmp_path}", skip_broken=True)
    assert (len(kept.skipped), len(kept.train) + len(kept.test)) == (1, 10)
    assert any(
        "1 pictures in" in r and "links to files that are not there, and are left out" in r for r in kept.remarks
    )


def test_a_browsers_jfif_is_a_jpeg(tmp_path: Path) -> None:
    fill(tmp_path, *TWO, n=2)
    Image.new("RGB", (4, 4)).save(tmp_path / "cat/saved.jfif", "JPEG")
    data = read(tmp_path)
    assert len(data.train) + len(data.test) == 5
