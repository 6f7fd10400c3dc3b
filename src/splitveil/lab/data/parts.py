"""Who holds which image: private ones, the adversary's own, and never one that is both."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from splitveil.core.errors import DataError, OverlapError
from splitveil.lab.data.base import Array, Dataset, Images
from splitveil.lab.data.pixels import fitted
from splitveil.lab.data.sampling import without

ENOUGH = 500
"""Fewer auxiliary test images than this are topped up from the training part."""

PRIVATE, AUX, TOP_UP = range(3)


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Private and auxiliary images that share no picture.

    Without an auxiliary set of its own the adversary's images are those of ``data.test`` at `test_aux_index`, then
    those of ``data.train`` at `train_aux_index`, so that one forward pass over the test part serves all.
    """

    private: Images
    aux: Images
    private_index: Array
    """Positions of the private images in the test part."""
    aux_index: Array
    """Positions of `aux` in its set, training part first, test part after it."""
    aux_words: str
    """What the adversary holds, as a phrase."""
    test_aux_index: Array
    """Positions in ``data.test``; empty with an auxiliary set."""
    train_aux_index: Array
    """Positions in ``data.train``; empty with an auxiliary set."""


def partition(data: Dataset, *, n: int, aux: Dataset | None, max_aux: int, seed: int) -> Parts:
    """Draw `n` private images from the test part, and up to `max_aux` for the adversary.

    Without `aux` these are other test images; only where they are fewer than min(`max_aux`, 500) are training images
    added, up to that number. Copies of private images are left out. With `aux` they are drawn from both of its parts,
    brought to the shape of the model's images; their labels and attributes remain those of `aux`.

    Raises:
        DataError: fewer images than asked for, or none left for the adversary.
        OverlapError: `aux` holds copies of private images.
    """
    if n < 1 or max_aux < 1:
        raise DataError(f"expected at least one private and one auxiliary image, got {n} and {max_aux}; ask for more.")
    if n > len(data.test):
        raise DataError(
            f"expected at most {len(data.test):,} private images, the test part of {data.name}, got {n:,}; "
            "ask for fewer, with -n."
        )
    private_index = np.random.default_rng([seed, PRIVATE]).permutation(len(data.test))[:n]
    private = data.test.take(private_index)
    secret = _digests(private.x)
    if aux is not None:
        return _foreign(data, private, private_index, secret, aux, max_aux, seed)
    test, copies = _unlike(data.test.x, without(private_index, len(data.test)), secret)
    test = np.random.default_rng([seed, AUX]).permutation(test)[:max_aux]
    train = np.empty(0, dtype=np.int64)
    lacking = min(max_aux, ENOUGH) - len(test)
    if lacking > 0:
        train, more = _unlike(data.train.x, np.arange(len(data.train)), secret)
        train, copies = np.random.default_rng([seed, TOP_UP]).permutation(train)[:lacking], copies + more
    if not len(test) + len(train):
        raise DataError(f"{data.name} has no image left for the adversary; lower the number of private images.")
    index = np.concatenate([test + len(data.train), train])
    words = _own_words(data.name, len(test), len(train), copies)
    known = data.test.take(test).joined(data.train.take(train))
    return Parts(private, known, private_index, index, words, test, train)


def _foreign(
    data: Dataset, private: Images, private_index: Array, secret: set[bytes], aux: Dataset, max_aux: int, seed: int
) -> Parts:
    channels, height, width = data.shape
    both = aux.train.joined(aux.test)
    both = replace(both, x=fitted(both.x, channels, (width, height)))
    fresh, copies = _unlike(both.x, np.arange(len(both)), secret)
    if copies:
        raise OverlapError(
            f"{copies:,} images of {aux.name} are copies of private images of {data.name}; take them out, or leave "
            "the auxiliary set out."
        )
    index = np.random.default_rng([seed, AUX]).permutation(fresh)[:max_aux]
    nothing = np.empty(0, dtype=np.int64)
    words = f"{len(index):,} images of {aux.name}, none of which is private"
    return Parts(private, both.take(index), private_index, index, words, nothing, nothing)


def _digests(x: Array) -> set[bytes]:
    return {hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in x}


def _unlike(x: Array, index: Array, secret: set[bytes]) -> tuple[Array, int]:
    """Those of the positions `index` in x whose pixels are not in `secret`, and how many were dropped."""
    keep = [hashlib.blake2b(x[i].tobytes(), digest_size=16).digest() not in secret for i in index]
    kept = index[np.array(keep, dtype=bool)]
    return kept, len(index) - len(kept)


def _own_words(name: str, test: int, train: int, copies: int) -> str:
    words = f"{test:,} test images of {name} that are neither private nor in the training set"
    if train:
        words = f"{test:,} test images of {name} that are not private and, as these are few, {train:,} training images"
    return words + (f" ({copies:,} copies of private images left out)" if copies else "")
