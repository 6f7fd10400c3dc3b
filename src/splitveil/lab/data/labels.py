"""Labels as numbers and names, and warnings of what cannot be learned from them."""

from collections.abc import Sequence

import numpy as np

from splitveil.core.errors import DataError
from splitveil.lab.data.base import Array, Images

FEW = 1000
"""Class numbers below this are taken whatever the number of images: a small part of a large set."""
IDENTITY = "identity"
"""The attribute of sets for re-identification, whose test part has other classes on purpose."""
SHOWN = 5


def class_numbers(y: Array, key: str) -> Array:
    """(N,) int64 from whole numbers (N,) or (N, 1), also as floats or truth values.

    Raises:
        DataError: anything else, or negative numbers.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    wide = y.astype(np.float64) if y.dtype.kind == "f" else np.zeros(0)
    whole = bool((np.isfinite(wide) & (wide == np.round(wide)) & (np.abs(wide) < 2**53)).all())
    if y.ndim != 1 or y.dtype.kind not in "iufb" or not whole:
        hint = "take its argmax over axis 1" if y.ndim == 2 else "save class numbers from 0"
        raise DataError(f"expected whole numbers (N,) or (N, 1) in {key}, got {y.dtype} {y.shape}; {hint}.")
    if len(y) and (int(y.min()) < 0 or int(y.max()) > np.iinfo(np.int64).max):
        raise DataError(
            f"expected class numbers from 0 in {key}, got {int(y.min())} to {int(y.max())}; "
            "number the classes from 0, without the images that have none."
        )
    return y.astype(np.int64)


def are_names(y: Array) -> bool:
    """Whether labels are text, one an image."""
    return y.dtype.kind in "US" and y.ndim in (1, 2) and y.size == len(y)


def texts(names: Array, key: str) -> list[str]:
    """Text of an array, also of bytes.

    Raises:
        DataError: bytes that are not UTF-8.
    """
    try:
        return [n.decode() if isinstance(n, bytes) else str(n) for n in names.reshape(-1).tolist()]
    except UnicodeDecodeError as error:
        raise DataError(f"expected text in UTF-8 in {key}, got {error.object!r}; save it as strings.") from None


def numbered(parts: Sequence[Array], names: Sequence[str] | None) -> tuple[list[Array], tuple[str, ...]]:
    """Labels that are names, each part (N,) or (N, 1) -> class numbers, and the classes: `names`, or those that occur.

    Raises:
        DataError: a label that `names` lacks.
    """
    flat = [texts(part, "the labels") for part in parts]
    present = {label for part in flat for label in part}
    classes = tuple(sorted(present) if names is None else names)
    place = {name: k for k, name in enumerate(classes)}
    if strange := sorted(present - set(place)):
        raise DataError(f"labels are not among the classes of the file: {_few(strange)}; add them to classes.")
    return [np.array([place[label] for label in part], dtype=np.int64) for part in flat], classes


def counted(parts: Sequence[Array], name: str) -> tuple[str, ...]:
    """Classes of a set that does not name them: every number up to the highest in `parts`.

    Raises:
        DataError: the highest is far beyond the number of images: a date, a year or an identity, no class number.
    """
    highest = max((int(y.max()) for y in parts if len(y)), default=-1)
    images = sum(len(y) for y in parts)
    if highest >= max(FEW, images):
        raise DataError(
            f"{name} has the label {highest} among {images:,} images, which is no class number from 0; number the "
            "classes anew, or name them all in an array of strings called classes."
        )
    return tuple(str(k) for k in range(highest + 1))


def too_high(values: Array) -> bool:
    """Whether numbers (N,) are so far beyond the number of images that they name no classes."""
    return bool(len(values)) and int(values.max()) >= max(FEW, len(values))


def unlearnable(train: Images, test: Images, classes: Sequence[str]) -> list[str]:
    """What the labels of the two parts leave a model no way to learn, in sentences."""
    if IDENTITY in train.attributes:
        return []
    present = np.bincount(train.y, minlength=len(classes)) > 0
    remarks = []
    foreign = ~present[test.y]
    if foreign.any():
        lacking = [classes[int(k)] for k in np.unique(test.y[foreign])]
        remarks.append(
            f"{foreign.sum():,} of {len(test):,} test images have labels that no training image has ({_few(lacking)}): "
            "a model trained on these images cannot get them right"
        )
    if not present.all():
        absent = [classes[int(k)] for k in np.flatnonzero(~present)]
        remarks.append(f"{len(absent):,} of {len(classes):,} classes have no training image ({_few(absent)})")
    if present.sum() == 1:
        remarks.append(f"all training images have one label ({classes[int(present.argmax())]})")
    return remarks


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
