"""Inputs beside what each attack recovered: the heart of the page."""

from collections.abc import Callable
from dataclasses import dataclass

from splitveil.report.album import Album, Thumbnail
from splitveil.report.configuration import ConfigurationSection, Entry
from splitveil.report.folder import Bytes, Folder
from splitveil.report.words import box, decibels, similarity


@dataclass(frozen=True, slots=True)
class Shot:
    """One image with its scores; no scores for an input."""

    picture: Thumbnail
    alt: str
    psnr: str = ""
    ssim: str = ""


@dataclass(frozen=True, slots=True)
class Strip:
    """One row of images; no shots where the audit kept none for this attack."""

    label: str
    kind: str
    means: str
    box: str
    unreliable: bool
    shots: tuple[Shot, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """All rows of one configuration. `columns` is the number of sample images."""

    title: str
    slot: int
    columns: int
    strips: tuple[Strip, ...]


def grid(
    folder: Folder,
    config: ConfigurationSection,
    title: str,
    slot: int,
    album: Album,
    show: Callable[[Entry], bool] = lambda _: True,
) -> Grid | None:
    """The inputs, then one row for each entry that `show` admits; None where the audit kept no samples."""
    samples = folder.samples
    if samples is None:
        return None
    inputs = tuple(Shot(album.add(x), f"input {i}") for i, x in zip(samples.index, samples.inputs, strict=True))
    strips = [Strip("inputs", "input", "", "", False, inputs)]
    for entry in filter(show, config.entries):
        strips.append(_strip(folder, entry, samples.guesses.get(entry.number), album))
    return Grid(title, slot, len(inputs), tuple(strips))


def _strip(folder: Folder, entry: Entry, guesses: Bytes | None, album: Album) -> Strip:
    row, label = entry.row, entry.label
    shots = []
    if guesses is not None and folder.samples is not None:
        psnr, ssim = folder.scores[entry.number, "psnr"], folder.scores[entry.number, "ssim"]
        for place, (i, guess) in enumerate(zip(folder.samples.index, guesses, strict=True)):
            text = (decibels(float(psnr[place])), similarity(float(ssim[place])))
            shots.append(Shot(album.add(guess), f"{label} for input {i}", *text))
    kind = "floor" if entry.is_floor else "worst" if entry.is_worst else "attack"
    means = f"{decibels(entry.value('psnr'))} dB / {similarity(entry.value('ssim'))}"
    return Strip(label, kind, means, box(row.needs) if kind == "attack" else "", bool(row.unreliable), tuple(shots))
