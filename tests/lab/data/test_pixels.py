import numpy as np
import pytest
from PIL import Image

from splitveil.lab.data.pixels import fitted, resized, to_array, with_channels

RNG = np.random.default_rng(0)


def test_halving_averages_instead_of_skipping() -> None:
    board = np.indices((16, 16)).sum(0) % 2 * 255
    out = resized(board.astype(np.uint8)[None, None], 8)
    assert out.shape == (1, 1, 8, 8)
    assert (np.abs(out.astype(int) - 127) <= 3).all()


def test_longer_side_is_cut_at_both_ends() -> None:
    x = np.zeros((1, 3, 4, 8), np.uint8)
    x[..., 2:6] = 200
    assert (resized(x, 4) == 200).all()


def test_same_size_is_untouched() -> None:
    x = RNG.integers(0, 256, (2, 3, 5, 5), dtype=np.uint8)
    assert resized(x, 5) is x


def test_grey_is_pillows_luma() -> None:
    x = RNG.integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    expected = [np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L")) for image in x]
    assert (with_channels(x, 1)[:, 0] == np.stack(expected)).all()


def test_colour_from_grey_and_back() -> None:
    x = RNG.integers(0, 256, (2, 1, 5, 5), dtype=np.uint8)
    assert with_channels(x, 3).shape == (2, 3, 5, 5)
    assert (with_channels(with_channels(x, 3), 1) == x).all()


@pytest.mark.parametrize(("have", "want"), [(1, 1), (1, 3), (3, 1), (3, 3)])
def test_both_at_once(have: int, want: int) -> None:
    x = np.full((2, have, 8, 10), 90, np.uint8)
    assert (fitted(x, want, 4) == np.full((2, want, 4, 4), 90)).all()
    assert fitted(x, want, None).shape == (2, want, 8, 10)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_becomes_grey_or_colour(mode: str) -> None:
    picture = Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode)
    assert (to_array(picture, 3, None) == np.full((3, 4, 6), 255)).all()
    assert (to_array(picture, 1, 2) == np.full((1, 2, 2), 255)).all()
