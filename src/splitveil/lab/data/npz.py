"""NumPy archives with the keys that Keras uses: ``x_train``, ``y_train``, ``x_test``, ``y_test``."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from splitveil.core.errors import DataError
from splitveil.lab.data.base import Array, Dataset, Images
from splitveil.lab.data.labels import are_names, class_numbers, counted, numbered, texts, too_high
from splitveil.lab.data.sampling import split_images
from splitveil.lab.data.spec import DataSpec
from splitveil.wire.arrays import Archive
from splitveil.wire.pictures.values import CHANNELS, as_bytes

PARTS = ("train", "test")
KEYS = ("x_train", "y_train", "x_test", "y_test")


def archive(spec: DataSpec) -> Dataset:
    """A NumPy archive with x_train, y_train and, unless a fifth is to be split off, x_test, y_test.

    Images are uint8 or floats in [0, 1], (N, H, W), (N, H, W, C) or (N, C, H, W); labels (N,) or (N, 1), whole
    numbers from 0 or names. An array of strings called ``classes`` names the classes; without it class numbers may not
    go far beyond the number of images.

    Whole numbers NAME_train and NAME_test, (N,) or (N, 1), are the attribute NAME of the images, -1 where unknown; an
    archive without x_test may call them NAME alone. Numbers that are another for every image name it and are left out.

    Raises:
        DataError: missing, unreadable, or not such an archive; nothing in it is ever run.
    """
    arrays = dict(_read(spec.need_path()))
    names, remarks = _class_names(arrays), _without_dates(arrays)
    parts = [f"y_{part}" for part in PARTS if f"y_{part}" in arrays]
    if all(are_names(arrays[key]) for key in parts):
        labels, names = numbered([arrays[key] for key in parts], names)
        arrays.update(zip(parts, labels, strict=True))
    train = _images(arrays, "train")
    if "x_test" in arrays:
        test = _images(arrays, "test")
    else:
        train, test = split_images(train, str(spec))
    if names is None:
        names = counted([train.y, test.y], str(spec))
    return Dataset(str(spec), train, test, names, remarks=(*remarks, *_dark([train, test])))


def _class_names(arrays: Mapping[str, Array]) -> tuple[str, ...] | None:
    names = arrays.get("classes")
    named = names is not None and names.ndim == 1 and names.dtype.kind in "US"
    return tuple(texts(names, "classes")) if names is not None and named else None


def _without_dates(arrays: dict[str, Array]) -> list[str]:
    """Take numbers out of `arrays` that are no attribute's class numbers, and say which."""
    held = {key: values for key, values in arrays.items() if key not in (*KEYS, "classes")}
    wrong = {}
    for key, values in held.items():
        name, _, of = key.rpartition("_")
        flat = values.reshape(-1)
        if values.ndim in (1, 2) and values.size == len(values) and too_high(flat) and not _identifies(flat):
            wrong[name if name and of in PARTS else key] = int(flat.max())
    for name in wrong:
        for key in (name, *(f"{name}_{part}" for part in PARTS)):
            arrays.pop(key, None)
    return [
        f"{name} is no attribute of the images, as {high} is far beyond their number; number its values from 0"
        for name, high in wrong.items()
    ]


def _read(path: Path) -> Mapping[str, Array]:
    with Archive(path) as held:
        _check_keys(path, held.names)
        arrays = {key: held.read(key) for key in (*KEYS, "classes") if key in held.names}
        for key in held.names:
            # Of the rest, attributes: Python objects, words and measures are nothing that anyone asks for here.
            if key not in arrays and held.kind(key) in "iub":
                arrays[key] = held.read(key)
        return arrays


def _check_keys(path: Path, held: Sequence[str]) -> None:
    wanted = KEYS if {"x_test", "y_test"} & set(held) else KEYS[:2]
    absent = [key for key in wanted if key not in held]
    if absent:
        raise DataError(
            f"{path} has no {' and no '.join(absent)}, it holds {', '.join(held) or 'nothing'}; "
            f"name the arrays {', '.join(KEYS)}."
        )


def _images(arrays: Mapping[str, Array], part: str) -> Images:
    x = _pixels(arrays[f"x_{part}"], f"x_{part}")
    attributes: dict[str, Array] = {}
    for key, found in arrays.items():
        values = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
        if key in (*KEYS, "classes") or values.ndim != 1:
            continue
        name, _, of = key.rpartition("_")
        if name and of in PARTS:
            if of == part and not _identifies(arrays.get(f"{name}_train", values)):
                attributes[name] = values.astype(np.int64)
        elif "x_test" not in arrays and len(values) == len(x) and not _identifies(values):
            attributes[key] = values.astype(np.int64)
    return Images(x, class_numbers(arrays[f"y_{part}"], f"y_{part}"), attributes)


def _identifies(values: Array) -> bool:
    """Another number for every image: a name for it, nothing that could be learnt."""
    return len(np.unique(values)) == values.size > 1


def _converted(x: Array) -> str:
    """What to do about pixels of another kind: a cast alone would take wider numbers modulo 256."""
    if x.dtype.kind == "b":
        return "convert it with astype('float32')"
    if x.dtype.kind in "iu" and x.size and (x.min() < 0 or x.max() > 255):
        return f"it runs from {x.min()} to {x.max()}; divide by the largest value that a pixel can have"
    return "convert it with astype('uint8')"


def _dark(parts: Sequence[Images]) -> list[str]:
    """Pixels in [0, 1] that somebody wrote as whole numbers look like this."""
    if max(int(part.x.max(initial=0)) for part in parts) > 1:
        return []
    return ["no pixel is brighter than 1 of 255: images in [0, 1] belong there as floats, all others up to 255"]


def _pixels(x: Array, key: str) -> Array:
    """(N, C, H, W) uint8."""
    if x.dtype.kind == "f":
        if not (x.size and x.min() >= 0 and x.max() <= 1):
            low, high = (x.min(), x.max()) if x.size else ("nothing", "nothing")
            raise DataError(f"expected uint8 or floats in [0, 1] in {key}, got floats {low} to {high}; rescale them.")
        x = as_bytes(x)
    elif x.dtype != np.uint8:
        raise DataError(f"expected uint8 or floats in [0, 1] in {key}, got {x.dtype}; {_converted(x)}.")
    if x.ndim == 3:
        return x[:, None]
    if x.ndim != 4:
        raise DataError(f"expected (N, H, W), (N, H, W, C) or (N, C, H, W) in {key}, got {x.shape}; reshape it.")
    first, last = x.shape[1] in CHANNELS, x.shape[3] in CHANNELS
    if first and last:
        raise DataError(f"cannot tell channels from pixels in {key} {x.shape}; save it as uint8 with a wider image.")
    if not first and not last:
        raise DataError(f"expected 1 or 3 channels second or last in {key}, got {x.shape}; drop or add channels.")
    return x if first else np.ascontiguousarray(x.transpose(0, 3, 1, 2))
