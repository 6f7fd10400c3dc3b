from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitveil.core.errors import DataError
from splitveil.lab.data import load_data

VERI = {
    "image_train": ["0001_c001_00016450_0.jpg", "0001_c002_00016460_0.jpg", "0003_c001_00016470_0.jpg"],
    "image_query": ["0002_c002_00030600_0.jpg"],
    "image_test": ["0002_c002_00030600_0.jpg", "0002_c003_00030700_0.jpg", "0005_c001_00030800_0.jpg"],
}
MARKET = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0007_c2s3_070952_01.jpg"],
    "query": ["0001_c1s1_001051_00.jpg"],
    "bounding_box_test": [
        "0001_c2s1_001976_01.jpg", "-1_c1s1_000401_03.jpg", "0000_c3s1_000151_01.jpg", "Thumbs.db",
    ],
}  # fmt: skip


def tree(root: Path, layout: dict[str, list[str]]) -> str:
    rng = np.random.default_rng(0)
    for folder, names in layout.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            if name.endswith(".jpg"):
                Image.fromarray(rng.integers(0, 256, (20, 10, 3), dtype=np.uint8)).save(root / folder / name)
            else:
                (root / folder / name).write_bytes(b"")
    return f"reid:{root}"


def test_veri(tmp_path: Path) -> None:
    data = load_data(tree(tmp_path, VERI) + "?size=16")
    assert (data.shape, data.classes) == ((3, 16, 16), ("0001", "0003", "0002", "0005", "distractor"))
    assert data.train.y.tolist() == [0, 0, 1]
    assert data.test.y.tolist() == data.test.attributes["identity"].tolist() == [2, 2, 3]
    assert data.test.attributes["camera"].tolist() == [2, 3, 1]
    assert data.test.attributes["query"].tolist() == [1, 0, 0]


def test_market_without_junk_and_with_distractors(tmp_path: Path) -> None:
    data = load_data(tree(tmp_path, MARKET))
    assert (data.shape, data.classes) == ((3, 64, 64), ("0002", "0007", "0001", "distractor"))
    assert data.test.y.tolist() == [2, 3, 2]
    assert data.test.attributes["identity"].tolist() == [2, -1, 2]
    assert data.test.attributes["camera"].tolist() == [1, 3, 2]
    assert data.test.attributes["query"].tolist() == [1, 0, 0]
    assert data.train.attributes["query"].tolist() == [0, 0]


def test_tall_pictures_are_squeezed_not_cropped(tmp_path: Path) -> None:
    spec = tree(tmp_path, MARKET)
    tall = np.zeros((40, 10, 3), dtype=np.uint8)
    tall[:10] = 255
    Image.fromarray(tall).save(tmp_path / "query" / MARKET["query"][0], quality=95)
    image = load_data(f"{spec}?size=16").test.x[0]
    assert image[:, :3].mean() > 240
    assert image[:, 6:].mean() < 15


def test_n_keeps_every_identity_in_its_share(tmp_path: Path) -> None:
    data = load_data(tree(tmp_path, VERI) + "?n=2&size=16")
    assert (len(data.train), len(data.test)) == (2, 3)


def test_a_missing_set_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image_train, image_query, image_test or .* in .*nowhere; .*on request"):
        load_data(f"reid:{tmp_path / 'nowhere'}")
    tree(tmp_path, {folder: [] for folder in VERI})
    with pytest.raises(DataError, match="holds 0 training pictures and 0 queries"):
        load_data(f"reid:{tmp_path}")


def test_strange_names_and_broken_pictures_are_named(tmp_path: Path) -> None:
    spec = tree(tmp_path, VERI)
    (tmp_path / "image_test" / "0005_c001_9.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"cannot read the picture .*0005_c001_9.jpg"):
        load_data(spec)
    (tmp_path / "image_test" / "0005_c001_9.jpg").rename(tmp_path / "image_test" / "holiday.jpg")
    with pytest.raises(DataError, match=r"expected a name such as .*, got holiday.jpg; remove it"):
        load_data(spec)


def test_the_recipe_says_that_pictures_are_squeezed(tmp_path: Path) -> None:
    data = load_data(tree(tmp_path, VERI) + "?size=16x24&channels=1")
    assert data.shape == (1, 24, 16)
    assert data.picture is not None
    assert (data.picture.source, data.picture.crop, data.picture.size) == ("files", "none", (16, 24))


def test_broken_crops_are_left_out_with_their_attributes(tmp_path: Path) -> None:
    spec = tree(tmp_path, VERI)
    whole = load_data(f"{spec}?size=16")
    name = VERI["image_query"][0]
    (tmp_path / "image_query" / name).write_bytes(b"no picture")
    data = load_data(f"{spec}?size=16&skip_broken=true")
    assert len(data.test) == len(whole.test) - 1
    assert data.test.attributes["camera"].tolist() == whole.test.attributes["camera"].tolist()[1:]
    assert data.skipped[0].startswith(str(tmp_path / "image_query" / name))


def test_suffixes_and_folders_in_other_case_are_read(tmp_path: Path) -> None:
    expected = load_data(tree(tmp_path / "a", VERI) + "?size=16")
    tree(tmp_path / "b", VERI)
    for path in sorted((tmp_path / "b").rglob("*.jpg")):
        path.rename(path.with_suffix(".JPG" if path.stem.endswith("60_0") else ".jpeg"))
    for folder in VERI:
        (tmp_path / "b" / folder).rename(tmp_path / "b" / folder.title())
    again = load_data(f"reid:{tmp_path / 'b'}?size=16")
    assert (again.classes, sorted(again.train.y.tolist())) == (expected.classes, expected.train.y.tolist())
    assert again.remarks == ()


def test_dates_in_the_place_of_cameras_are_refused(tmp_path: Path) -> None:
    spec = tree(tmp_path, VERI | {"image_test": ["0002_c20240131_00030700_0.jpg"]})
    with pytest.raises(
        DataError, match=r"expected numbers of cameras in the names .* got up to 20240131; name them as"
    ):
        load_data(spec)
