"""Seeded choices of images that give every class its share: test parts, subsets."""

import numpy as np

from splitveil.core.errors import DataError
from splitveil.lab.data.base import Array, Images

TEST_SHARE = 0.2
SPLIT_SEED = 0
"""Sets without a test part are always split alike, whatever seed an experiment has."""


def stratified(y: Array, n: int, seed: int) -> Array:
    """Ascending positions of `n` of the labels y: (N,), each class within one of its share.

    Every member of a class gets a random place in that class, from 0 to 1; the `n` lowest places win.
    """
    rng = np.random.default_rng(seed)
    place = np.empty(len(y))
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        place[members] = (np.arange(len(members)) + rng.random(len(members))) / len(members)
    return np.sort(np.argsort(place, kind="stable")[:n])


def without(index: Array, total: int) -> Array:
    """Ascending positions below `total` that are not in `index`."""
    keep = np.ones(total, dtype=bool)
    keep[index] = False
    return np.flatnonzero(keep)


def split_off_test(y: Array, name: str, n: int | None = None) -> tuple[Array, Array]:
    """Positions of training and test images, the latter `n` or a fifth of all.

    Raises:
        DataError: fewer than two images.
    """
    if len(y) < 2:
        raise DataError(f"expected at least two images in {name} to split off a test part, got {len(y)}; add images.")
    test = stratified(y, n or max(1, round(TEST_SHARE * len(y))), SPLIT_SEED)
    return without(test, len(y)), test


def split_images(images: Images, name: str, n: int | None = None) -> tuple[Images, Images]:
    """A training and a test part of a set that has none.

    Raises:
        DataError: fewer than two images, or not one label and one value of each attribute an image.
    """
    counts = {"labels": images.y, **{f"values of attribute {key}": a for key, a in images.attributes.items()}}
    if wrong := [f"{len(values)} {what}" for what, values in counts.items() if len(values) != len(images.x)]:
        raise DataError(f"{name} has {len(images.x)} images but {' and '.join(wrong)}; give one of each an image.")
    train, test = split_off_test(images.y, name, n)
    return images.take(train), images.take(test)
