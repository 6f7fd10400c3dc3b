from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitveil.data import load_data
from splitveil.errors import DataError

RNG = np.random.default_rng(0)


def picture(path: Path, size: tuple[int, int] = (8, 6), mode: str = "RGB", value: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3)
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8) if value is None else np.full(shape, value, np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def tree(root: Path, parts: tuple[str, ...] = ("train", "test"), mode: str = "RGB", n: int = 5) -> str:
    for part in parts:
        for name in ("cat", "dog"):
            for i in range(n):
                picture(root / part / name / f"{i}.png", mode=mode)
    return f"folder:{root}"


@pytest.mark.parametrize("held", ["test", "val"])
def test_train_and_test_folders(tmp_path: Path, held: str) -> None:
    data = load_data(tree(tmp_path, ("train", held)))
    assert (data.shape, data.classes) == ((3, 6, 8), ("cat", "dog"))
    assert data.train.y.tolist() == data.test.y.tolist() == [0] * 5 + [1] * 5
    expected = np.asarray(Image.open(tmp_path / held / "dog" / "0.png")).transpose(2, 0, 1)
    assert (data.test.x[5] == expected).all()


@pytest.mark.parametrize("parts", [("",), ("train",)])
def test_a_fifth_is_split_off_where_there_is_no_test_folder(tmp_path: Path, parts: tuple[str, ...]) -> None:
    data = load_data(tree(tmp_path, parts))
    assert (len(data.train), data.test.y.tolist()) == (8, [0, 1])
    assert len({x.tobytes() for x in np.concatenate([data.train.x, data.test.x])}) == 10


def test_grey_pictures_stay_grey_unless_asked(tmp_path: Path) -> None:
    spec = tree(tmp_path, mode="L")
    assert load_data(spec).shape == (1, 6, 8)
    assert load_data(f"{spec}?channels=3").shape == (3, 6, 8)
    picture(tmp_path / "train" / "cat" / "colour.png")
    assert load_data(spec).shape == (3, 6, 8)
    assert load_data(f"{spec}?channels=1").shape == (1, 6, 8)


def test_several_sizes_need_a_size(tmp_path: Path) -> None:
    spec = tree(tmp_path)
    picture(tmp_path / "train" / "dog" / "9.png", (12, 12))
    with pytest.raises(DataError, match=r"several sizes, 0.png \(6, 8\) and 9.png \(12, 12\); add \?size=N"):
        load_data(spec)
    assert load_data(f"{spec}?size=5").shape == (3, 5, 5)


def test_n_reads_only_that_many(tmp_path: Path) -> None:
    data = load_data(f"{tree(tmp_path)}?n=4")
    assert (sorted(data.train.y.tolist()), len(data.test)) == ([0, 0, 1, 1], 10)


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    tree(tmp_path, n=1)
    turned = Image.Exif()
    turned[0x0112] = 6
    for path in tmp_path.rglob("*.png"):
        path.unlink()
        Image.new("RGB", (8, 6)).save(path.with_suffix(".jpg"), exif=turned)
    assert load_data(f"folder:{tmp_path}").shape == (3, 8, 6)


def test_damaged_and_deep_pictures_are_named(tmp_path: Path) -> None:
    spec = tree(tmp_path)
    bad = tmp_path / "train" / "cat" / "1.png"
    whole = bad.read_bytes()
    for damaged in (b"no picture", whole[:60]):
        bad.write_bytes(damaged)
        with pytest.raises(DataError, match=r"cannot read the picture .*train/cat/1.png .*; mend or remove it\."):
            load_data(spec)
    Image.fromarray(np.zeros((6, 8), np.uint16)).save(bad)
    with pytest.raises(DataError, match=r"expected 8 bits a channel in .*1.png, got mode I;16; convert the picture\."):
        load_data(spec)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*gone: no such folder; check the path\."):
        load_data(f"folder:{tmp_path / 'gone'}")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match=r"holds no class folders with pictures; arrange them as .*/CLASS/picture.png"):
        load_data(f"folder:{tmp_path}")


def test_test_classes_must_be_known(tmp_path: Path) -> None:
    spec = tree(tmp_path)
    picture(tmp_path / "test" / "emu" / "0.png")
    with pytest.raises(DataError, match=r"test has classes that .*train lacks: emu; name the folders alike\."):
        load_data(spec)


def test_a_test_folder_may_lack_classes(tmp_path: Path) -> None:
    spec = tree(tmp_path)
    for path in (tmp_path / "test" / "cat").iterdir():
        path.unlink()
    assert load_data(spec).test.y.tolist() == [1] * 5
