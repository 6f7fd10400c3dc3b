from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitveil.core.errors import DataError
from splitveil.lab.data import load_data

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


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    spec = tree(tmp_path)
    bad = tmp_path / "train" / "cat" / "1.png"
    whole = bad.read_bytes()
    for damaged in (b"no picture", whole[:60]):
        bad.write_bytes(damaged)
        with pytest.raises(DataError, match=r"cannot read the picture .*train/cat/1.png .*; mend or remove it\."):
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


def test_rectangles_are_width_times_height(tmp_path: Path) -> None:
    spec = tree(tmp_path)
    picture(tmp_path / "train" / "dog" / "9.png", (40, 12))
    data = load_data(f"{spec}?size=8x4")
    assert (data.shape, data.name) == ((3, 4, 8), f"folder:{tmp_path.name}?size=8x4")
    assert data.picture is not None
    assert (data.picture.size, data.picture.source, data.picture.crop) == ((8, 4), "files", "centre")


def test_images_lie_in_one_piece_in_memory(tmp_path: Path) -> None:
    data = load_data(f"{tree(tmp_path)}?size=5")
    assert data.train.x.flags.c_contiguous
    assert data.test.take(np.array([1, 0])).x.flags.c_contiguous


def broken(root: Path) -> str:
    spec = tree(root)
    (root / "train" / "cat" / "1.png").write_bytes(b"no picture")
    (root / "test" / "dog" / "0.png").write_bytes(b"")
    whole = (root / "train" / "dog" / "2.png").read_bytes()
    (root / "train" / "dog" / "2.png").write_bytes(whole[:70])
    return spec


def test_all_broken_pictures_of_both_parts_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read 3 of the 20 pictures .*--skip-broken\.") as caught:
        load_data(broken(tmp_path))
    assert all(name in str(caught.value) for name in ("train/cat/1.png", "test/dog/0.png", "train/dog/2.png"))


@pytest.mark.parametrize("asked", ["?skip_broken=true", "?n=8&skip_broken=true", "?n=10&skip_broken=true"])
def test_broken_pictures_are_left_out_and_counted_where_asked(tmp_path: Path, asked: str) -> None:
    data = load_data(broken(tmp_path) + asked)
    assert len(data.train) + len(data.test) + len(data.skipped) == (18 if "n=8" in asked else 20)
    assert data.name.endswith(f"({len(data.skipped)} broken pictures left out)")
    assert all(path.startswith(str(tmp_path)) for path in data.skipped)
    assert len(data.test) == len(data.test.y) == 9


def test_the_switch_of_the_command_line_does_the_same(tmp_path: Path) -> None:
    assert len(load_data(broken(tmp_path), skip_broken=True).skipped) == 3
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="cannot read 20 of the 20 pictures"):
        load_data(f"folder:{tmp_path}", skip_broken=True)


def test_whole_sets_have_their_old_name_with_the_switch(tmp_path: Path) -> None:
    spec = tree(tmp_path)
    assert load_data(spec, skip_broken=True).name == load_data(spec).name == f"folder:{tmp_path.name}"
