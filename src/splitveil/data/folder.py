"""Folders of pictures, one folder a class."""

from pathlib import Path

import numpy as np
from PIL import Image

from splitveil.data.base import Array, Dataset, Images
from splitveil.data.pixels import to_array
from splitveil.data.sampling import split_off_test, stratified
from splitveil.data.spec import DataSpec
from splitveil.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
TEST_NAMES = ("test", "val")
GREY = frozenset({"1", "L", "LA"})
DEEP = frozenset({"I", "I;16", "I;16B", "I;16L", "F"})


def pictures(spec: DataSpec) -> Dataset:
    """Folders PATH/train/CLASS and PATH/test/CLASS (or val), or PATH/CLASS, of which a fifth is split off for tests.

    Pictures are turned upright and are grey if all of them are; ``?size=`` makes them one size.

    Raises:
        DataError: no such folder, no pictures, unreadable ones, several sizes, or test classes that train lacks.
    """
    root = spec.need_path()
    if not root.is_dir():
        raise DataError(f"cannot read {root}: no such folder; check the path.")
    inner = root / "train"
    files, y, classes = _listed(inner if inner.is_dir() else root)
    held = next((root / name for name in TEST_NAMES if (root / name).is_dir()), None) if inner.is_dir() else None
    if held is None:
        train, test = split_off_test(y, str(spec))
        parts = [([files[i] for i in train], y[train]), ([files[i] for i in test], y[test])]
    else:
        test_files, test_y, test_classes = _listed(held)
        strange = [name for name in test_classes if name not in classes]
        if strange:
            raise DataError(f"{held} has classes that {inner} lacks: {', '.join(strange)}; name the folders alike.")
        known = np.array([classes.index(name) for name in test_classes])
        parts = [(files, y), (test_files, known[test_y])]
    if spec.n is not None and spec.n < len(parts[0][0]):
        kept = stratified(parts[0][1], spec.n, 0)
        parts[0] = ([parts[0][0][i] for i in kept], parts[0][1][kept])
    channels = spec.channels or (1 if all(_is_grey(path) for paths, _ in parts for path in paths) else 3)
    train_part, test_part = (Images(_stacked(paths, channels, spec), labels) for paths, labels in parts)
    return Dataset(str(spec), train_part, test_part, classes)


def _listed(root: Path) -> tuple[list[Path], Array, tuple[str, ...]]:
    found = {
        folder.name: sorted(p for p in folder.rglob("[!.]*") if p.suffix.lower() in SUFFIXES and p.is_file())
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    }
    found = {name: paths for name, paths in found.items() if paths}
    if not found:
        raise DataError(f"{root} holds no class folders with pictures; arrange them as {root.name}/CLASS/picture.png.")
    files = [path for paths in found.values() for path in paths]
    y = np.repeat(np.arange(len(found), dtype=np.int64), [len(paths) for paths in found.values()])
    return files, y, tuple(found)


def _open(path: Path) -> Image.Image:
    try:
        picture = Image.open(path)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from None
    return picture


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"cannot read the picture {path} ({error}); mend or remove it.")


def _is_grey(path: Path) -> bool:
    with _open(path) as picture:
        return picture.mode in GREY


def _stacked(paths: list[Path], channels: int, spec: DataSpec) -> Array:
    images: list[Array] = []
    for path in paths:
        with _open(path) as picture:
            if picture.mode in DEEP:
                raise DataError(f"expected 8 bits a channel in {path}, got mode {picture.mode}; convert the picture.")
            try:
                image = to_array(picture, channels, spec.size)
            except (OSError, SyntaxError, ValueError) as error:
                raise _unreadable(path, error) from None
        if images and image.shape != images[0].shape:
            raise DataError(
                f"pictures of {spec} have several sizes, {paths[0].name} {images[0].shape[1:]} and {path.name} "
                f"{image.shape[1:]}; add ?size=N to make all of them N x N."
            )
        images.append(image)
    return np.stack(images)
