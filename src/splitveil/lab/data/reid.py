"""Re-identification sets as their authors give them out: VeRi-776 and Market-1501."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splitveil.core.errors import DataError
from splitveil.lab.data.base import Dataset, Images
from splitveil.lab.data.labels import too_high
from splitveil.lab.data.sampling import stratified
from splitveil.lab.data.spec import DataSpec
from splitveil.wire.pictures import Faults, recipe_for, stacked

LAYOUTS = (
    ("image_train", "image_query", "image_test"),
    ("bounding_box_train", "query", "bounding_box_test"),
)
"""Folders for training, queries and gallery: VeRi-776's (Liu et al. 2016) and Market-1501's (Zheng et al. 2015)."""
NAMED = re.compile(r"(-?\d+)_c(\d+)")
"""Identity and camera, as in 0001_c001_00016450_0.jpg and 0002_c1s1_000451_03.jpg."""
SUFFIXES = (".jpg", ".jpeg", ".png")
JUNK, DISTRACTOR = -1, 0
SIZE = 64
OBTAIN = (
    "both sets are given out for research only: VeRi-776 on request from its authors "
    "(github.com/JDAI-CV/VeRidataset), Market-1501 from its project page; unpack one and write reid:PATH"
)


@dataclass(frozen=True, slots=True)
class Crop:
    """A picture of one identity (-1 for a distractor) by one camera, both as numbers of the set."""

    path: Path
    identity: int
    camera: int
    query: bool


def crops(spec: DataSpec) -> Dataset:
    """VeRi-776 or Market-1501 under PATH, which their authors give out: ``reid:PATH?size=64``.

    The training part is theirs, the test part is their queries and gallery, of other identities. Classes are the
    identities of both parts, then ``distractor``; those of the test part are never trained, so that a classifier's
    accuracy on it says nothing: see `splitveil.lab.auditing.gallery`. Whole pictures are squeezed to ``size``.

    Attributes: ``camera``, ``query`` (1 for queries) and ``identity``, the class, -1 for distractors (0000 in
    Market-1501). Its junk (-1) is left out, and so are gallery pictures with the name of a query, which VeRi-776 has
    twice.

    Raises:
        DataError: no such folder or layout, names without identity and camera, unreadable pictures.
    """
    root = spec.need_path()
    folders = {f.name.casefold(): f for f in root.iterdir() if f.is_dir()} if root.is_dir() else {}
    layout = next((names for names in LAYOUTS if all(name in folders for name in names)), None)
    if layout is None:
        wanted = " or ".join(", ".join(names) for names in LAYOUTS)
        raise DataError(f"expected the folders {wanted} in {root}; {OBTAIN}.")
    train, asked, gallery = (_listed(folders[name], query=name == layout[1]) for name in layout)
    named = {crop.path.name for crop in asked}
    test = asked + [crop for crop in gallery if crop.path.name not in named]
    train = [crop for crop in train if crop.identity >= 0]
    if not train or not asked:
        raise DataError(f"{root} holds {len(train)} training pictures and {len(asked)} queries; {OBTAIN}.")
    identities = sorted({crop.identity for crop in train}) + sorted({crop.identity for crop in test} - {-1})
    if too_high(np.array([crop.camera for crop in train + test])):
        raise DataError(
            f"expected numbers of cameras in the names of the pictures in {root}, got up to "
            f"{max(crop.camera for crop in train + test)}; name them as 0001_c001_00016450_0.jpg."
        )
    known = {identity: k for k, identity in enumerate(dict.fromkeys(identities))}
    if spec.n is not None and spec.n < len(train):
        train = [train[i] for i in stratified(np.array([known[crop.identity] for crop in train]), spec.n, 0)]
    classes = (*(f"{identity:04d}" for identity in known), "distractor")
    faults = Faults()
    ours, theirs = (_images(part, known, spec, faults) for part in (train, test))
    skipped = faults.settle(str(spec), len(train) + len(test), skip=spec.skip_broken)
    read_as = recipe_for(ours.x.shape[1:], source="files", crop="none")
    return Dataset(str(spec), ours, theirs, classes, picture=read_as, skipped=skipped)


def _listed(folder: Path, *, query: bool) -> list[Crop]:
    found = []
    # JPEGs first: the order of a set, and with it every draw from it, is older than the other spellings.
    pictures = [path for path in folder.glob("[!.]*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    for path in sorted(pictures, key=lambda path: (SUFFIXES.index(path.suffix.lower()), path)):
        match = NAMED.match(path.name)
        if match is None:
            raise DataError(
                f"expected a name such as 0001_c001_00016450_0.jpg in {folder}, got {path.name}; remove it."
            )
        identity, camera = int(match[1]), int(match[2])
        if identity != JUNK:
            found.append(Crop(path, -1 if identity == DISTRACTOR else identity, camera, query))
    return found


def _images(found: list[Crop], known: dict[int, int], spec: DataSpec, faults: Faults) -> Images:
    paths = [crop.path for crop in found]
    x, whole = stacked(paths, spec.channels or 3, spec.frame or (SIZE, SIZE), faults, name=str(spec), crop="none")
    found = [found[i] for i in whole]
    identity = np.array([known.get(crop.identity, -1) for crop in found], dtype=np.int64)
    attributes = {
        "identity": identity,
        "camera": np.array([crop.camera for crop in found], dtype=np.int64),
        "query": np.array([crop.query for crop in found], dtype=np.int64),
    }
    return Images(x, np.where(identity < 0, len(known), identity), attributes)
