import numpy as np
import pytest

from splitveil.core.errors import DataError
from splitveil.lab.data import load_data
from splitveil.lab.data.base import Array
from splitveil.lab.data.vehicles.font import COLUMNS, MARGIN, ROWS, inked
from splitveil.lab.data.vehicles.geometry import AZIMUTHS, silhouette
from splitveil.lab.data.vehicles.identities import NOTHING, PLATE, TYPES, draw_identities

SMALL = "vehicles?n=120&identities=12&size=32"


def test_the_same_seed_gives_the_same_pictures_and_another_one_others() -> None:
    one, two, other = (load_data(f"vehicles?n=12&identities=4&size=16{seed}") for seed in ("", "&seed=0", "&seed=1"))
    assert (one.train.x == two.train.x).all()
    assert (one.test.x == two.test.x).all()
    assert one.classes == two.classes != other.classes
    assert (one.train.x != other.train.x).mean() > 0.9


def test_parts_and_sizes() -> None:
    data = load_data(SMALL)
    assert (data.shape, len(data.train), len(data.test), len(data.classes)) == ((3, 32, 32), 120, 60, 12)
    assert data.name == "vehicles?size=32&n=120&identities=12"
    assert np.bincount(data.train.y).tolist() == [10] * 12
    assert load_data("vehicles?n=6&identities=3&size=16&channels=1").shape == (1, 16, 16)


def test_test_images_show_sides_and_cameras_that_training_did_not() -> None:
    data = load_data("vehicles?n=300&identities=5&size=16")
    train, test = ({tuple(row) for row in np.stack(cells(part), 1).tolist()} for part in (data.train, data.test))
    assert not train & test
    assert {v for _, v, _ in train} == {v for _, v, _ in test} == set(range(5))
    assert {c for *_, c in train} == {c for *_, c in test} == set(range(8))


def cells(part: object) -> tuple[Array, Array, Array]:
    return part.y, part.attributes["viewpoint"], part.attributes["camera"]  # type: ignore[attr-defined]


def test_attributes_belong_to_the_identity_and_plates_to_the_views_that_show_them() -> None:
    data = load_data(SMALL)
    found = data.train.attributes
    visible = found["plate_visible"] == 1
    assert (visible == (found["viewpoint"] != 2)).all()
    for place in range(4):
        digit = np.array([int(data.classes[k][place]) for k in data.train.y])
        assert (found[f"plate{place + 1}"] == np.where(visible, digit, -1)).all()
    for name in ("type", "colour"):
        assert all(len(set(found[name][data.train.y == k])) == 1 for k in range(12))
    assert len(set(data.classes)) == 12
    assert (found["plate_x"][~visible] == -1).all()


@pytest.mark.parametrize("size", [32, 48])
def test_the_plate_stands_where_it_is_said_to(size: int) -> None:
    """There it is bright with dark digits, and brighter than the bumpers on both sides of it are as a rule."""
    data = load_data(f"vehicles?n=80&identities=40&size={size}")
    found = data.train.attributes
    grey = data.train.x.mean(1)
    frontal = np.flatnonzero(found["viewpoint"] < 2)
    around = np.stack([window(grey[i], found["plate_x"][i], found["plate_y"][i], size // 8) for i in frontal])
    elsewhere = np.stack([window(grey[i], size // 2, size // 3, size // 8) for i in frontal])
    assert (around.max((1, 2)) - around.min((1, 2))).mean() > 110
    assert around.std((1, 2)).mean() > 1.5 * elsewhere.std((1, 2)).mean()


def window(image: Array, column: int, row: int, reach: int) -> Array:
    padded = np.pad(image, reach, mode="edge")
    return padded[row : row + reach, column + reach // 2 : column + reach // 2 + reach]


def test_identities_do_not_depend_on_how_many_are_asked_for() -> None:
    few, many = draw_identities(5, 3), draw_identities(50, 3)
    assert (few.plates == many.plates[:5]).all()
    assert (few.palette == many.palette[:5]).all()
    assert len(np.unique(many.plates @ [1000, 100, 10, 1])) == 50


def test_a_plate_is_written_from_left_to_right_in_every_view_that_shows_it() -> None:
    """A mirrored plate would tell a reader nothing."""
    for kind in range(len(TYPES)):
        for viewpoint in (0, 1, 3, 4):
            for azimuth in AZIMUTHS[viewpoint]:
                view = silhouette(kind, azimuth, 96)
                row, column = np.nonzero(view.parts >= PLATE)
                texel = view.parts[row, column] - PLATE
                assert len(texel) > 150
                assert np.corrcoef(column, texel % COLUMNS)[0, 1] > 0.95
                assert np.corrcoef(row, texel // COLUMNS)[0, 1] > 0.8
                assert view.plate is not None
                assert abs(column.mean() / 96 - view.plate[0]) < 0.03
                assert abs(row.mean() / 96 - view.plate[1]) < 0.03


def test_silhouettes_differ_between_types_and_fill_their_frame() -> None:
    sides = [silhouette(kind, 84, 64).parts != NOTHING for kind in range(len(TYPES))]
    assert all((a != b).mean() > 0.01 for i, a in enumerate(sides) for b in sides[:i])
    assert all(np.ptp(np.nonzero(side.any(0))[0]) > 50 for side in sides)


def test_digits_are_ten_different_ones() -> None:
    plates = inked(np.arange(10)[:, None] * np.ones((1, 4), dtype=np.int64))
    assert plates.shape == (10, ROWS, COLUMNS)
    assert len({p[:, MARGIN : MARGIN + 5].tobytes() for p in plates}) == 10
    assert (plates[:, :, 2:7] == plates[:, :, 8:13]).all()
    assert not plates[:, :MARGIN].any()


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("vehicles?identities=20000", "expected 2 to 10,000 identities and a size of at least 16, got 20,000 and 64"),
        ("vehicles?size=8", "got 100 and 8; write vehicles?identities=100&size=64."),
        ("vehicles:here", "takes no path"),
        ("vehicles?seed=-1", "expected a whole number of at least 0 for seed, got '-1'; write for example seed=1."),
        ("digits?seed=1&identities=3", "'digits' is not drawn and takes no identities= and no seed=; leave it out."),
    ],
)
def test_mistakes_are_explained(spec: str, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        load_data(spec)
    assert sentence in str(caught.value)


def test_rectangles_are_the_middle_and_plates_move_with_it() -> None:
    square, flat = load_data("vehicles?n=60&identities=5&size=64"), load_data("vehicles?n=60&identities=5&size=64x40")
    assert (flat.train.x == square.train.x[:, :, 12:52]).all()
    ours, theirs = flat.train.attributes, square.train.attributes
    seen = ours["plate_visible"] == 1
    assert 0 < seen.sum() <= theirs["plate_visible"].sum()
    assert (ours["plate_y"][seen] == theirs["plate_y"][seen] - 12).all()
    assert (ours["plate_x"][seen] == theirs["plate_x"][seen]).all()
    assert (ours["plate1"][~seen] == -1).all()
