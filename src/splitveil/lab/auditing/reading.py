"""A plate reader beside an audit: how much of a number plate can be read from what an attack guessed."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from splitveil.core.errors import InputError
from splitveil.lab.auditing.examiners import Measure
from splitveil.lab.data import Dataset, Images
from splitveil.lab.images import as_floats
from splitveil.lab.metrics.plates import CELL, CHARACTERS, PlateReader, train_reader
from splitveil.lab.store import Facts, Kept, Store

DIGITS = tuple(f"plate{k + 1}" for k in range(CHARACTERS))
CENTRE = ("plate_x", "plate_y")
WHAT = "plate reader"
ABOUT = {
    "plates": "The share of number plates that a reader reads without a mistake, of those it reads on the input. "
    "More leaks more.",
    "plate_characters": "The same, digit by digit; chance is 0.1. More leaks more.",
}
"""What its numbers say, as reports print it."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a reader learns from and is asked about, looked at before anything runs.

    Attributes:
        source: name of the data set whose training part it learns from.
        images: of that part those with a visible plate, none of which is private.
        private: all private images.
    """

    source: str
    images: Images
    private: Images

    @classmethod
    def of(cls, data: Dataset, private: Images) -> "Lesson":
        """From the training part of `data`, without pictures that are private too.

        Raises:
            InputError: images without plates, none visible, or of another shape than the private ones.
        """
        for images, name in ((data.train, data.name), (private, "the private images")):
            if lacking := [a for a in (*DIGITS, *CENTRE) if a not in images.attributes]:
                raise InputError(
                    f"expected plates (attributes {', '.join(lacking)}), got none in {name}; use --data vehicles."
                )
        channels, height, width = private.x.shape[1:]
        if data.shape != (channels, height, width):
            raise InputError(
                f"expected pictures of {(channels, height, width)} for the plate reader, got {data.shape}; give "
                "--plates-from the size of --data."
            )
        if channels != 3 or height % CELL or width % CELL:
            raise InputError(
                f"expected colour pictures whose sides {CELL} divides for the plate reader, got {data.shape}; "
                "use --data vehicles?size=64."
            )
        secret = {image.tobytes() for image in private.x}
        fresh = [i for i in _visible(data.train).nonzero()[:, 0].tolist() if data.train.x[i].tobytes() not in secret]
        if not fresh or not _visible(private).any():
            raise InputError(
                f"expected visible plates to learn from and private ones, got {len(fresh)} in the training part of "
                f"{data.name} and {int(_visible(private).sum())} private; use --data vehicles, or a larger -n."
            )
        return cls(data.name, data.train.take(torch.tensor(fresh).numpy()), private)

    def taught(self, store: Store, seed: int) -> PlateReader:
        """The reader that `store` holds, or a new one that it keeps; no generator is moved."""
        images = self.images

        def make(_: Path | None) -> Kept:
            x, plates, centres = torch.from_numpy(images.x), _digits(images), _centres(images)
            return "{}", train_reader(x, plates, centres, seed=seed).state_dict()

        with torch.random.fork_rng(devices=[]):
            _, weights = store.kept(Taught(images, seed), make)
            reader = PlateReader()
            reader.load_state_dict(weights)
        return reader.requires_grad_(False).eval()


@dataclass(frozen=True)
class Taught(Facts):
    """A reader that learned from these images."""

    made_by: ClassVar = ("splitveil.lab.metrics.plates",)
    images: Images
    seed: int

    @property
    def label(self) -> str:
        return WHAT


class Reading:
    """A plate reader before the private images: what it reads in a guess where it can read the image itself.

    Args:
        reader: trained on images that are not private.
        lesson: what it was trained on, and the private images.

    Raises:
        InputError: no private plate that it reads on the image itself.
    """

    def __init__(self, reader: PlateReader, lesson: Lesson) -> None:
        self.reader, self.lesson = reader, lesson
        seen = _visible(lesson.private).nonzero()[:, 0]
        truth = _digits(lesson.private)[seen]
        clean = as_floats(torch.from_numpy(lesson.private.x)[seen])
        known = (reader.read(clean) == truth).all(1)
        if not known.any():
            raise InputError(
                f"expected a private plate that the plate reader reads on the clean picture, got none of {len(seen)} "
                f"after {len(lesson.images):,} pictures of training; give it more cars by --plates-from "
                "'vehicles?n=3000&identities=3000&seed=7', or use a larger -n or size."
            )
        self.n, self.visible = len(lesson.private), len(seen)
        self.places, self.truth = seen[known], truth[known]

    @property
    def facts(self) -> PlateReader:
        """What decides the values beside the private images."""
        return self.reader

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Plates read without a mistake, and characters read right; more of either leaks more."""
        return (
            Measure("plates", "1", higher_leaks=True, of="plates", tail=False),
            Measure("plate_characters", "1", higher_leaks=True, of="plate_characters", tail=False),
        )

    @property
    def note(self) -> str:
        """Who reads, how well it reads the images themselves, and how many of their plates it learned from."""
        taught = {tuple(p) for p in _digits(self.lesson.images).tolist()}
        own = {tuple(p) for p in self.truth.tolist()}
        return (
            f"plate reader: reads {len(self.places):,} of the {self.visible:,} plates visible on the private images as "
            f"they are, and the shares are of these; chance is 0.1 a character; trained on {len(self.lesson.images):,} "
            f"images of {self.lesson.source} with {len(taught):,} plates, {len(own & taught):,} of the {len(own):,} "
            "read here among them" + (": it may know these by heart" if own & taught else "")
        )

    def scores(self, guess: Tensor) -> dict[str, Tensor]:
        """Key -> (N,) float32, NaN for images whose plate cannot be read anyway. guess: (N, 3, H, W) in [0, 1]."""
        right = (self.reader.read(guess[self.places]) == self.truth).float()
        plates, characters = torch.full((2, self.n), torch.nan)
        plates[self.places], characters[self.places] = right.prod(1), right.mean(1)
        return {"plates": plates, "plate_characters": characters}


def _visible(images: Images) -> Tensor:
    """(N,) bool: digits and centre are known."""
    return torch.cat([_digits(images), _centres(images)], 1).min(1).values >= 0


def _digits(images: Images) -> Tensor:
    """(N, 4) int64."""
    return torch.stack([torch.from_numpy(images.attributes[name]) for name in DIGITS], 1)


def _centres(images: Images) -> Tensor:
    """(N, 2) int64, column and row."""
    return torch.stack([torch.from_numpy(images.attributes[name]) for name in CENTRE], 1)
