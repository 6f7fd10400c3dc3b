"""Folders of pictures, one folder a class."""

from pathlib import Path

from splitveil.core.errors import DataError
from splitveil.lab.data.base import Array, Dataset, Images
from splitveil.lab.data.layout import find_layout
from splitveil.lab.data.sampling import split_off_test, stratified
from splitveil.lab.data.spec import DataSpec
from splitveil.wire.pictures import SUFFIXES, Faults, is_grey, recipe_for, stacked


def pictures(spec: DataSpec) -> Dataset:
    """PATH/train/CLASS and PATH/test/CLASS, or PATH/CLASS, a fifth tests: `folder:PATH?size=64` or `?size=64x48`.

    Parts are known by what people call them (Training, Testing, valid, dev, ...), see `find_layout`. Pictures are read
    as `splitveil.wire.pictures` says and are grey if all of them are; ``?size=`` makes them one size. Broken ones are
    named together, or with ``?skip_broken=true`` left out and counted.

    Raises:
        DataError: no such folder, no pictures, unreadable ones, several sizes, or test classes that train lacks.
    """
    root = spec.need_path()
    if not root.is_dir():
        raise DataError(f"cannot read {root}: no such folder; check the path.")
    layout = find_layout(root, SUFFIXES)
    files, y = layout.train.files, layout.train.y
    if layout.test is None:
        train, test = split_off_test(y, str(spec))
        parts = [([files[i] for i in train], y[train]), ([files[i] for i in test], y[test])]
    else:
        parts = [(files, y), (layout.test.files, layout.test.y)]
    if spec.n is not None and spec.n < len(parts[0][0]):
        kept = stratified(parts[0][1], spec.n, 0)
        parts[0] = ([parts[0][0][i] for i in kept], parts[0][1][kept])
    faults = Faults()
    channels = spec.channels or _channels([path for paths, _ in parts for path in paths], faults)
    train_part, test_part = (_read(paths, labels, channels, spec, faults) for paths, labels in parts)
    skipped = faults.settle(str(spec), sum(len(paths) for paths, _ in parts), skip=spec.skip_broken)
    read_as = recipe_for(train_part.x.shape[1:], source="files")
    return Dataset(str(spec), train_part, test_part, layout.classes, layout.remarks, read_as, skipped)


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
