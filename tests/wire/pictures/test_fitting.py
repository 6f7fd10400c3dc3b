"""Sizes: squares and rectangles, files and arrays alike."""

import numpy as np
import pytest
from PIL import Image

from splitveil.core.errors import BundleError
from splitveil.lab.data.pixels import resized
from splitveil.wire.pictures import cropped, picture_words, read_picture, recipe_for, to_array
from splitveil.wire.pictures.recipe import check_recipe

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (8, 6), (6, 8), (3, 50), (50, 3), (49, 33)])
@pytest.mark.parametrize("of", [(100, 49), (49, 100), (1, 1), (33, 2), (64, 64), (97, 101)])
def test_any_size_becomes_any_other(of: tuple[int, int], size: tuple[int, int]) -> None:
    x = RNG.integers(0, 256, (1, 3, of[1], of[0]), dtype=np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(x[0].transpose(1, 2, 0)))
    assert cropped(picture, size).size == size
    np.testing.assert_array_equal(to_array(picture, 3, size), resized(x, size)[0])


def test_a_rectangle_is_the_centre_and_no_pixel_of_another_place() -> None:
    x = np.zeros((1, 1, 40, 40), np.uint8)
    x[:, :, 5:35] = 200
    assert resized(x, (40, 30)).shape == (1, 1, 30, 40)
    assert (resized(x, (40, 30)) == 200).all()
    assert (resized(x.swapaxes(2, 3), (30, 40)) == 200).all()


def test_a_square_is_what_it_always_was() -> None:
    picture = Image.fromarray(RNG.integers(0, 256, (37, 80, 3), dtype=np.uint8))
    expected = picture.resize((16, 16), Image.Resampling.BILINEAR, box=(21.5, 0, 58.5, 37))
    np.testing.assert_array_equal(to_array(picture, 3, 16), np.asarray(expected).transpose(2, 0, 1))


def test_squeezed_pictures_lose_nothing() -> None:
    picture = Image.fromarray(RNG.integers(0, 256, (20, 60, 3), dtype=np.uint8))
    recipe = recipe_for((3, 8, 8), source="files", crop="none")
    assert recipe is not None
    expected = np.asarray(picture.resize((8, 8), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_picture(picture, recipe), expected)
    assert "squeezed" in picture_words(recipe)


def test_recipes_of_another_version_are_refused() -> None:
    ours = recipe_for((3, 6, 8))
    assert ours is not None
    check_recipe(ours, (3, 6, 8))
    for change in ({"loader": 2}, {"crop": "top"}, {"resample": "lanczos"}, {"size": (6, 8)}, {"antialias": False}):
        with pytest.raises(
            BundleError, match=r"expected pictures read by loader 1 into \(3, 6, 8\), got .*use the Spl"
        ):
            check_recipe(ours.model_copy(update=change), (3, 6, 8))
    assert recipe_for((4, 8, 8)) is None
