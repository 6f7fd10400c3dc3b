"""An audit folder as it lies on disk: the card, the per-image scores and, where they were kept, the sample images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from splitveil.core.errors import InputError
from splitveil.core.records import STANDING, Card, Role
from splitveil.wire.pictures.values import as_floats

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
METRICS = tuple(STANDING)
ROUNDING = 0.005
"""How far the root mean squared error of pictures rounded to bytes may lie from that of the images behind them."""
REMEDY = "run `splitveil audit` again or give another folder"


@dataclass(frozen=True, slots=True)
class Exposed:
    """The images that one row leaks most, by PSNR, most first; k is 5 or all images where there are fewer.

    Attributes:
        inputs: (k, C, H, W) uint8.
        guesses: (k, C, H, W) uint8.
        index: (k,), their places in the test part.
        psnr: (k,), of the guesses.
        ssim: (k,).
    """

    inputs: Bytes
    guesses: Bytes
    index: tuple[int, ...]
    psnr: tuple[float, ...]
    ssim: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Samples:
    """Images kept to be looked at.

    Attributes:
        inputs: (k, C, H, W) uint8, the first k of the scored images.
        index: (k,), their places in the test part.
        guesses: row number -> (k, C, H, W) uint8; a row may be missing.
        exposed: row number -> the images that it leaks most; a row may be missing.
    """

    inputs: Bytes
    index: tuple[int, ...]
    guesses: Mapping[int, Bytes]
    exposed: Mapping[int, Exposed]


@dataclass(frozen=True, slots=True)
class Folder:
    """One audit, read and checked.

    Attributes:
        name: of the folder; `load_all` makes names differ.
        card: as written by the audit.
        scores: (row number, metric) -> (n,) float32; empty where a card lies alone, as in a bundle.
        samples: None where the audit kept none.
    """

    name: str
    card: Card
    scores: Mapping[tuple[int, str], Floats]
    samples: Samples | None

    @classmethod
    def load(cls, path: Path) -> "Folder":
        """Read an audit folder, or a bundle with a card.

        Raises:
            InputError: the folder or its card is missing, or a file in it is damaged or does not fit the card.
        """
        if not path.is_dir():
            raise InputError(f"there is no folder {path}; give one that `splitveil audit` wrote.")
        if not (path / "card.json").is_file():
            raise InputError(f"{path} has no card.json and is no audit folder; give one that `splitveil audit` wrote.")
        card = Card.load(path / "card.json")
        if not card.rows:
            raise InputError(f"{path / 'card.json'} holds no rows, so there is nothing to report; {REMEDY}.")
        if (path / "manifest.json").is_file():
            # A bundle's card: the means alone.
            return cls(path.resolve().name, card, {}, None)
        scores = _scores(path / "scores.safetensors", card)
        samples = path / "samples.safetensors"
        return cls(path.resolve().name, card, scores, _samples(samples, card, scores) if samples.exists() else None)


def load_all(paths: Sequence[Path]) -> list[Folder]:
    """Read several audit folders; folders of one name are told apart by their parents, then by a number.

    Raises:
        InputError: no folder given, one of them twice, or any error of `Folder.load`.
    """
    if not paths:
        raise InputError("no audit folder was given; name at least one that `splitveil audit` wrote.")
    places = [p.resolve() for p in paths]
    for place in places:
        if places.count(place) > 1:
            raise InputError(f"{place} was given twice; name each audit folder once.")
    folders = [Folder.load(path) for path in paths]
    names = [f.name for f in folders]
    if len(set(names)) < len(names):
        names = [f"{place.parent.name}/{place.name}" for place in places]
    if len(set(names)) < len(names):
        names = [f"{i}: {name}" for i, name in enumerate(names, 1)]
    return [Folder(n, f.card, f.scores, f.samples) for n, f in zip(names, folders, strict=True)]


def _tensors(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return dict(load_file(path))
    except FileNotFoundError:
        raise InputError(f"{path} is missing, so the audit is incomplete; {REMEDY}.") from None
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error}); {REMEDY}.") from None


def _scores(path: Path, card: Card) -> dict[tuple[int, str], Floats]:
    found = _tensors(path)
    scores: dict[tuple[int, str], Floats] = {}
    for number, row in enumerate(card.rows):
        for metric in METRICS:
            key = f"row{number:03d}.{metric}"
            values = found.get(key)
            if values is None or values.shape != (row.n,):
                got = "none" if values is None else values.shape
                raise InputError(f"{path} does not fit its card: expected {key} ({row.n},), got {got}; {REMEDY}.")
            scores[number, metric] = values.astype(np.float32)
    return scores


def _samples(path: Path, card: Card, scores: Mapping[tuple[int, str], Floats]) -> Samples | None:
    found = _tensors(path)
    inputs, index = found.get("input"), found.get("index")
    if inputs is None or inputs.ndim != 4 or inputs.dtype != np.uint8 or index is None or index.shape != (len(inputs),):
        raise InputError(f"{path}: expected uint8 'input' (k, C, H, W) and 'index' (k,), got something else; {REMEDY}.")
    if inputs.size == 0:
        return None
    if len(inputs) > min(row.n for row in card.rows):
        raise InputError(f"{path}: expected no more samples than scored images, got {len(inputs)}; {REMEDY}.")
    guesses: dict[int, Bytes] = {}
    for number in range(len(card.rows)):
        guess = found.get(f"row{number:03d}")
        if guess is None:
            continue
        if guess.shape != inputs.shape or guess.dtype != np.uint8:
            raise InputError(
                f"{path}: expected row{number:03d} as uint8 {inputs.shape}, got {guess.dtype} {guess.shape}; {REMEDY}."
            )
        _check_scored(f"{path}: the pictures of row{number:03d}", inputs, guess, scores[number, "mse"][: len(guess)])
        guesses[number] = guess
    numbers = range(len(card.rows))
    exposed = {n: e for n in numbers if (e := _exposed(path, found, n, inputs.shape[1:], _exposing(card, n, scores)))}
    return Samples(inputs, tuple(int(i) for i in index), guesses, exposed)


def _exposed(
    path: Path,
    found: Mapping[str, NDArray[Any]],
    number: int,
    shape: tuple[int, ...],
    scores: Mapping[str, Floats],
) -> Exposed | None:
    name = f"row{number:03d}.worst"
    inputs, guesses, index = (found.get(name + part) for part in ("_input", "", "_index"))
    if inputs is None and guesses is None and index is None:
        return None
    psnr = scores["psnr"]
    if inputs is None or guesses is None or index is None or index.ndim != 1 or not 0 < len(index) <= len(psnr):
        raise InputError(f"{path}: expected {name}, {name}_input and {name}_index together, got only some; {REMEDY}.")
    for part in (inputs, guesses):
        if part.shape != (len(index), *shape) or part.dtype != np.uint8:
            raise InputError(
                f"{path}: expected {name} as uint8 {(len(index), *shape)}, got {part.dtype} {part.shape}; {REMEDY}."
            )
    order = np.argsort(-psnr, kind="stable")[: len(index)]
    _check_scored(f"{path}: the images of {name}", inputs, guesses, scores["mse"][order])
    told = (tuple(float(v) for v in scores[metric][order]) for metric in ("psnr", "ssim"))
    return Exposed(inputs, guesses, tuple(int(i) for i in index), *told)


def _exposing(card: Card, number: int, scores: Mapping[tuple[int, str], Floats]) -> dict[str, Floats]:
    """Metric -> (n,), by which a row's most exposed images were chosen: of a worst case the best attack's, no floor's.

    Cards from before the two were told apart have them by all rows.
    """
    row = card.rows[number]
    outside = {(o.attack, o.options) for o in card.against_at(row.place)}
    attacks = [
        k
        for k, r in enumerate(card.rows)
        if r.place == row.place and r.role is Role.ATTACK and (r.attack, r.options) not in outside
    ]
    if not row.envelope or not attacks:
        return {metric: scores[number, metric] for metric in METRICS}
    best = np.stack([scores[k, "psnr"] for k in attacks]).argmax(0)
    each = {metric: np.stack([scores[k, metric] for k in attacks]) for metric in METRICS}
    return {metric: values[best, np.arange(row.n)] for metric, values in each.items()}


def _check_scored(what: str, inputs: Bytes, guesses: Bytes, mse: Floats) -> None:
    rmse = np.sqrt(np.square(as_floats(inputs) - as_floats(guesses)).mean((1, 2, 3)))
    if (abs(rmse - np.sqrt(mse)) > ROUNDING).any():
        raise InputError(f"{what} are not those that were scored; {REMEDY}.")
