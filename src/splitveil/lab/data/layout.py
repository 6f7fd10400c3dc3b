"""How folders of pictures are arranged: which part is which, which folder a class, and what is none of it."""

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splitveil.core.errors import DataError
from splitveil.lab.data.base import Array, presentable

TRAIN, TEST, VALIDATION = "training", "test", "validation"
ROLES: Mapping[str, str] = {
    **dict.fromkeys(("train", "training", "trainset", "trainingset", "traindata", "trainingdata"), TRAIN),
    **dict.fromkeys(("test", "testing", "testset", "testingset", "testdata", "testingdata"), TEST),
    **dict.fromkeys(("val", "valid", "validation", "valset", "validset", "validationset"), VALIDATION),
    **dict.fromkeys(("dev", "devset", "eval", "evaluation", "evalset", "holdout"), VALIDATION),
}
"""What people call the parts, without case, spaces, dashes, underscores and dots."""
CLUTTER = frozenset({"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "__pycache__"})
"""Folders that systems leave behind; those whose names start with a dot are clutter too."""
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Listed:
    """Pictures of one part, class after class, and the class number (N,) of each."""

    files: list[Path]
    y: Array


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of a folder; test is None where a share of the training part has to be split off."""

    train: Listed
    test: Listed | None
    classes: tuple[str, ...]
    remarks: tuple[str, ...]
    """What was taken for what, and what was left out, where that is no matter of course."""


def find_layout(root: Path, suffixes: Collection[str]) -> Layout:
    """Read PART/CLASS/picture or CLASS/picture below `root`; parts are known by their names, whatever the case.

    Hidden files and folders and what systems leave behind are skipped; below a class folder links are not followed.

    Raises:
        DataError: no class folders, parts without a training part, a part twice, folders that look like parts and are
            called otherwise, test classes that training lacks, or names of classes that cannot be shown.
    """
    folders = _folders(root)
    parts = {folder: role for folder in folders if (role := ROLES.get(_key(folder.name)))}
    within = {folder: _classes(folder, suffixes) for folder in parts}
    others = [folder for folder in folders if folder not in parts and _pictures(folder, suffixes)]
    if others and not any(within.values()):
        parts = {}  # classes that happen to have such names
    if parts:
        return _with_parts(root, parts, within, others, suffixes)
    found = _classes(root, suffixes)
    if not found:
        raise DataError(_no_classes(root))
    _refuse_parts(root, found)
    return Layout(_numbered(found), None, _names(found), _described(root, found, suffixes))


def _with_parts(
    root: Path,
    parts: Mapping[Path, str],
    within: Mapping[Path, dict[Path, list[Path]]],
    others: list[Path],
    suffixes: Collection[str],
) -> Layout:
    by_role = {role: [folder for folder in parts if parts[folder] == role] for role in (TRAIN, TEST, VALIDATION)}
    usable = {role: [folder for folder in held if within[folder]] for role, held in by_role.items()}
    if not by_role[TRAIN]:
        raise DataError(
            f"{root} has {_listing(parts)} but no training part; "
            "put the class folders of the training part into a folder called train."
        )
    for role in (TRAIN, TEST) if usable[TEST] else (TRAIN, VALIDATION):
        if len(usable[role]) > 1:
            raise DataError(f"{root} has several {role} parts, {_listing(usable[role])}; keep one or join them.")
    if not usable[TRAIN]:
        raise DataError(_no_classes(by_role[TRAIN][0]))
    train = usable[TRAIN][0]
    held = next((folder for role in (TEST, VALIDATION) for folder in usable[role]), None)
    remarks = []
    if held is not None and parts[held] == VALIDATION:
        remarks.append(f"the test part is {held.name!r}, as there is no test folder with classes")
    for folder in [folder for folder in parts if folder not in (train, held)] + others:
        why = ": it has no class folders with pictures" if folder in parts and not within[folder] else ""
        remarks.append(f"{folder.name!r} beside {train.name!r} is left out{why}")
    classes = _names(within[train])
    told = _described(train, within[train], suffixes)
    if held is None:
        return Layout(_numbered(within[train]), None, classes, (*remarks, *told))
    test = _known(held, _names(within[held]), train, classes)
    listed = _numbered(within[held])
    told += _described(held, within[held], suffixes)
    return Layout(_numbered(within[train]), Listed(listed.files, test[listed.y]), classes, (*remarks, *told))


def _known(held: Path, names: tuple[str, ...], train: Path, classes: tuple[str, ...]) -> Array:
    """Class numbers of the test part's folders; an accent may be one character there and two here."""
    numbers = {unicodedata.normalize("NFC", name): k for k, name in enumerate(classes)}
    found = [numbers.get(unicodedata.normalize("NFC", name)) for name in names]
    if strange := [name for name, k in zip(names, found, strict=True) if k is None]:
        alike = {name.casefold(): name for name in classes}
        hints = [f"{n} (there it is {alike[n.casefold()]})" if n.casefold() in alike else n for n in strange]
        raise DataError(f"{held} has classes that {train} lacks: {', '.join(hints)}; name the folders alike.")
    return np.array(found, dtype=np.int64)


def _folders(root: Path) -> list[Path]:
    """Visible folders in `root`, sorted; a link to `root` or to a folder above it is none."""
    try:
        inside = sorted(root.iterdir())
    except OSError as error:
        raise DataError(f"cannot read {root}: {error.strerror}; check the path and its permissions.") from None
    here = root.resolve()
    return [f for f in inside if f.is_dir() and _visible(f.name) and not here.is_relative_to(f.resolve())]


def _classes(root: Path, suffixes: Collection[str]) -> dict[Path, list[Path]]:
    """Folders in `root` that hold pictures, at any depth, and these."""
    found = {folder: _pictures(folder, suffixes) for folder in _folders(root)}
    return {folder: files for folder, files in found.items() if files}


def _pictures(folder: Path, suffixes: Collection[str]) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("[!.]*")
        if path.suffix.lower() in suffixes
        and all(map(_visible, path.relative_to(folder).parts))
        and path.is_file()
    )  # fmt: skip


def _visible(name: str) -> bool:
    return not name.startswith(".") and name.casefold() not in CLUTTER


def _key(name: str) -> str:
    return "".join(c for c in name.casefold() if c not in " -_.")


def _numbered(found: Mapping[Path, list[Path]]) -> Listed:
    y = np.repeat(np.arange(len(found), dtype=np.int64), [len(files) for files in found.values()])
    return Listed([path for files in found.values() for path in files], y)


def _names(found: Mapping[Path, list[Path]]) -> tuple[str, ...]:
    """Names of the class folders.

    Raises:
        DataError: naming all that are not UTF-8 or hold control characters, which no card or bundle could hold.
    """
    names = tuple(folder.name for folder in found)
    if bad := [repr(os.fsencode(name)) for name in names if not presentable(name)]:
        raise DataError(
            f"expected names of class folders in UTF-8 and without control characters, got {_few(bad)} in "
            f"{next(iter(found)).parent}; rename the folders."
        )
    return names


def _refuse_parts(root: Path, found: Mapping[Path, list[Path]]) -> None:
    """Folders that hold the same folders again, or a single one with folders in it, are no classes."""
    inner = [{p.relative_to(f).parts[0] if p.parent != f else "" for p in files} for f, files in found.items()]
    names = [folder.name for folder in found]
    shared = set.intersection(*inner) - {""}
    if len(found) == 1 and "" not in inner[0]:
        raise DataError(
            f"expected class folders in {root}, got the one folder {names[0]!r} with folders in it; "
            f"give folder:{root / names[0]}, or move its folders up."
        )
    if len(found) > 1 and len(shared) > 1 and not any("" in held for held in inner):
        raise DataError(
            f"{_few(names)} in {root} all hold the folders {_few(sorted(shared))}, which looks like parts, "
            "not classes; call the parts train and test."
        )


def _described(root: Path, found: Mapping[Path, list[Path]], suffixes: Collection[str]) -> tuple[str, ...]:
    """What of a part was read otherwise than its owner may think."""
    remarks = []
    loose = sum(p.suffix.lower() in suffixes and _visible(p.name) and p.is_file() for p in root.iterdir())
    if loose:
        remarks.append(f"{loose:,} pictures directly in {root.name!r}, in no class folder, are left out")
    links = (p for f in found for p in f.rglob("[!.]*") if p.suffix.lower() in suffixes and p.is_symlink())
    if gone := sum(not p.exists() for p in links):
        remarks.append(f"{gone:,} pictures in {root.name!r} are links to files that are not there, and are left out")
    nested = {str(p.parent.relative_to(root)) for f, files in found.items() for p in files if p.parent != f}
    if nested:
        remarks.append(f"pictures in folders below a class folder count for that class: {_few(sorted(nested))}")
    same = Counter(folder.name.casefold() for folder in found)
    if twice := [folder.name for folder in found if same[folder.name.casefold()] > 1]:
        remarks.append(f"class folders whose names differ in case only are different classes: {_few(twice)}")
    return tuple(remarks)


def _no_classes(folder: Path) -> str:
    return f"{folder} holds no class folders with pictures; arrange them as {folder.name}/CLASS/picture.png."


def _listing(folders: Collection[Path]) -> str:
    return " and ".join(sorted(folder.name for folder in folders))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
