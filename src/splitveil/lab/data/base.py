"""Labelled images as arrays. Nothing here or beside it imports torch before it has to."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from splitveil.core.errors import DataError
from splitveil.core.records import Picture
from splitveil.wire.pictures.values import CHANNELS

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def presentable(name: str) -> bool:
    """Whether a name can stand in a table and in a file: UTF-8, without control characters and line breaks."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name)


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """x: (N, C, H, W) uint8, y: (N,) int64; attributes: name -> (N,) int64, other labels, -1 where unknown.

    Arrays are made contiguous: what is given as another order of the same bytes (channels last) is copied once.
    """

    x: Array
    y: Array
    attributes: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", _contiguous(self.x))
        object.__setattr__(self, "y", _contiguous(self.y))
        object.__setattr__(self, "attributes", {name: _contiguous(a) for name, a in self.attributes.items()})

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Array) -> "Images":
        """The images at these positions (m,), in that order."""
        return Images(self.x[index], self.y[index], {name: a[index] for name, a in self.attributes.items()})

    def joined(self, other: "Images") -> "Images":
        """These images and then the others, with the attributes that both have."""
        both = {
            n: np.concatenate([a, other.attributes[n]]) for n, a in self.attributes.items() if n in other.attributes
        }
        return Images(np.concatenate([self.x, other.x]), np.concatenate([self.y, other.y]), both)

    def problems(self, part: str, classes: int) -> list[str]:
        """Everything that makes these images, called `part`, unusable with so many classes."""
        wrong = []
        if self.x.dtype != np.uint8:
            wrong.append(f"{part} images are {self.x.dtype}, expected uint8")
        if self.x.ndim != 4:
            wrong.append(f"{part} images have shape {self.x.shape}, expected (N, C, H, W)")
        elif self.x.shape[1] not in CHANNELS:
            wrong.append(f"{part} images have {self.x.shape[1]} channels, expected 1 or 3")
        if self.x.size == 0:
            wrong.append(f"{part} holds no images")
        if self.y.dtype != np.int64 or self.y.ndim != 1:
            wrong.append(f"{part} labels are {self.y.dtype} {self.y.shape}, expected int64 (N,)")
        elif len(self.x) != len(self.y):
            wrong.append(f"{part} has {len(self.x)} images but {len(self.y)} labels")
        elif len(self.y) and not (self.y.min() >= 0 and self.y.max() < classes):
            wrong.append(f"{part} labels run from {self.y.min()} to {self.y.max()}, expected 0 to {classes - 1}")
        return wrong + self.attribute_problems(part)

    def attribute_problems(self, part: str) -> list[str]:
        """Everything that makes the attributes of these images, called `part`, unusable."""
        wrong = []
        for name, values in self.attributes.items():
            if values.dtype != np.int64 or values.ndim != 1:
                wrong.append(f"{part} attribute {name} is {values.dtype} {values.shape}, expected int64 (N,)")
            elif len(values) != len(self.x):
                wrong.append(f"{part} has {len(self.x)} images but {len(values)} values of attribute {name}")
            elif len(values) and values.min() < -1:
                wrong.append(f"{part} attribute {name} has {values.min()}, expected class numbers, or -1 for unknown")
        return wrong


def _contiguous(array: Array) -> Array:
    return np.ascontiguousarray(array) if isinstance(array, np.ndarray) and array.ndim else array


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A training and a test part with the same shape of image, the same classes and the same attributes.

    `picture` says how picture files became these images, None where they were arrays; `skipped` names the broken
    pictures that were left out.

    Raises:
        DataError: naming everything that is wrong.
    """

    name: str
    train: Images
    test: Images
    classes: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    """What a user should know and nothing stops at, one sentence each."""
    picture: Picture | None = None
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = self.train.problems("train", len(self.classes)) + self.test.problems("test", len(self.classes))
        if self.train.x.shape[1:] != self.test.x.shape[1:]:
            wrong.append(f"train images are {self.train.x.shape[1:]}, test images {self.test.x.shape[1:]}")
        train, test = (", ".join(sorted(part.attributes)) or "none" for part in (self.train, self.test))
        if train != test:
            wrong.append(f"train images have the attributes {train}, test images {test}")
        name = self.name if presentable(self.name) else ascii(self.name)
        if odd := [ascii(n) for n in (self.name, *self.classes) if not presentable(n)]:
            wrong.append(f"names are not UTF-8 or hold control characters: {', '.join(odd[:5])}")
        if wrong:
            raise DataError(f"{name} cannot be used: {'; '.join(wrong)}; mend the data.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.x.shape[1:]
        return channels, height, width
