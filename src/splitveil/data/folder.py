"""Folders of pictures, one folder a class."""

from pathlib import Path

import numpy as np

from splitveil.data.base import Array, Dataset, Images
from splitveil.data.sampling import split_off_test, stratified
from splitveil.data.spec import DataSpec
from splitveil.errors import DataError
from splitveil.pictures import SUFFIXES, Faults, is_grey, recipe_for, stacked

TEST_NAMES = ("test", "val")


def pictures(spec: DataSpec) -> Dataset:
    """Folders PATH/train/CLASS and PATH/test/CLASS (or val), or PATH/CLASS, of which a fifth is split off for tests.

    Pictures are read as `splitveil.pictures` says and are grey if all of them are; ``?size=`` makes them one size.
    Broken ones are named together, or with ``?skip_broken=true`` left out and counted.

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
    faults = Faults()
    channels = spec.channels or _channels([path for paths, _ in parts for path in paths], faults)
    train_part, test_part = (_read(paths, labels, channels, spec, faults) for paths, labels in parts)
    skipped = faults.settle(str(spec), sum(len(paths) for paths, _ in parts), skip=spec.skip_broken)
    read_as = recipe_for(train_part.x.shape[1:], source="files")
    return Dataset(str(spec), train_part, test_part, classes, picture=read_as, skipped=skipped)


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


def _channels(paths: list[Path], faults: Faults) -> int:
    """1 where all of these pictures are grey."""
    grey = True
    for path in paths:
        with faults.noted():
            grey &= is_grey(path)
    return 1 if grey else 3


def _read(paths: list[Path], labels: Array, channels: int, spec: DataSpec, faults: Faults) -> Images:
    x, whole = stacked(paths, channels, spec.frame, faults, name=str(spec))
    return Images(x, labels[whole])
