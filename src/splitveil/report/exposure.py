"""The images that leak most: inputs above what was recovered of them."""

from dataclasses import dataclass

from splitveil.report.album import Album
from splitveil.report.configuration import ConfigurationSection, Entry
from splitveil.report.folder import Folder
from splitveil.report.gallery import Shot
from splitveil.report.words import box, decibels, similarity


@dataclass(frozen=True, slots=True)
class Pairs:
    """One row's images, most leaked first: (input, guess) each. `box` is empty for the worst case."""

    label: str
    psnr: str
    box: str
    shots: tuple[tuple[Shot, Shot], ...]


@dataclass(frozen=True, slots=True)
class Exposure:
    """One configuration: its worst case by PSNR, and each attack for those who look closer."""

    title: str
    slot: int
    worst: Pairs | None
    attacks: tuple[Pairs, ...]


def most_exposed(folder: Folder, config: ConfigurationSection, title: str, slot: int, album: Album) -> Exposure | None:
    """None where the audit kept no such images for this configuration."""
    worst = config.worst("psnr")
    envelope = _pairs(folder, worst, album) if worst else None
    attacks = tuple(p for e in config.attacks if (p := _pairs(folder, e, album)))
    return Exposure(title, slot, envelope, attacks) if envelope or attacks else None


def _pairs(folder: Folder, entry: Entry, album: Album) -> Pairs | None:
    found = folder.samples.exposed.get(entry.number) if folder.samples else None
    if found is None:
        return None
    shots = []
    for i, psnr, ssim, x, guess in zip(found.index, found.psnr, found.ssim, found.inputs, found.guesses, strict=True):
        text = (decibels(psnr), similarity(ssim))
        recovered = Shot(album.add(guess), f"{entry.label} for input {i}", *text)
        shots.append((Shot(album.add(x), f"input {i}"), recovered))
    return Pairs(
        entry.label, decibels(entry.value("psnr")), "" if entry.is_worst else box(entry.row.needs), tuple(shots)
    )
