"""One picture for a README or a slide: inputs, and beneath them what the strongest attacks recovered."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from splitveil.core.errors import InputError
from splitveil.core.records import write_atomically
from splitveil.report.configuration import ConfigurationSection, Entry, configurations
from splitveil.report.folder import Bytes, Folder
from splitveil.report.png import encode, picture
from splitveil.report.words import accuracy, both

STRONGEST = 2
SIDE, GAP, LABELS, MARGIN, HEADING, NARROWEST, LONGEST_LABEL = 96, 8, 300, 28, 52, 860, 28
INK, SOFT, PAPER = "#1c2024", "#59636e", "#ffffff"


@dataclass(frozen=True, slots=True)
class Lane:
    """One line of the picture: a heading without images, or a label with (k, C, H, W) images."""

    label: str
    detail: str
    images: Bytes | None


def samples_picture(folder: Path, out: Path) -> Path | None:
    """Write a PNG: inputs, then for each configuration the highest floor and the strongest attacks.

    Returns:
        `out`, or None (and no file) where the audit kept no samples.

    Raises:
        InputError: the folder is missing or damaged, or `out` cannot be written.
    """
    found = Folder.load(folder)
    if found.samples is None:
        return None
    lanes = [Lane("inputs", "", found.samples.inputs)]
    for config in configurations(found.card):
        told = f"task accuracy {accuracy(config.accuracy, config.tested)}" if config.accuracy is not None else ""
        lanes.append(Lane(f"{config.cut} · {config.label}", told, None))
        for entry in _shown(config):
            images = found.samples.guesses.get(entry.number)
            if images is not None:
                score = both(entry.value("psnr"), entry.value("ssim"))
                doubt = ", unreliable" if entry.row.unreliable else ""
                label = entry.label
                label = label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"
                lanes.append(Lane(label, score + doubt, images))
    try:
        write_atomically(out, encode(_draw(lanes, len(found.samples.inputs))))
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; name a file in a folder that you may write.") from None
    return out


def _shown(config: ConfigurationSection) -> list[Entry]:
    floor = config.floor("psnr")
    strongest = sorted(config.attacks, key=lambda e: -e.value("psnr"))[:STRONGEST]
    return ([floor] if floor else []) + strongest


def _draw(lanes: list[Lane], columns: int) -> Image.Image:
    large, small = ImageFont.load_default(20), ImageFont.load_default(17)
    sample = next(lane.images for lane in lanes if lane.images is not None)
    wide, tall = _enlarged(picture(sample[0]))
    width = max(2 * MARGIN + LABELS + columns * (wide + GAP) - GAP, NARROWEST)
    height = 2 * MARGIN + sum(HEADING if lane.images is None else tall + GAP for lane in lanes) - GAP
    page = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(page)
    y = MARGIN
    for lane in lanes:
        if lane.images is None:
            pen.line([(MARGIN, y + 8), (width - MARGIN, y + 8)], fill="#d9dee4", width=2)
            pen.text((MARGIN, y + 18), lane.label, fill=INK, font=large)
            pen.text((width - MARGIN, y + 20), lane.detail, fill=SOFT, font=small, anchor="ra")
            y += HEADING
            continue
        middle = y + tall // 2
        pen.text((MARGIN, middle), lane.label, fill=INK, font=large, anchor="ls" if lane.detail else "lm")
        pen.text((MARGIN, middle + 8), lane.detail, fill=SOFT, font=small)
        for column, image in enumerate(lane.images):
            tile = picture(image).convert("RGB").resize((wide, tall), Image.Resampling.NEAREST)
            page.paste(tile, (MARGIN + LABELS + column * (wide + GAP), y))
        y += tall + GAP
    return page


def _enlarged(image: Image.Image) -> tuple[int, int]:
    times = max(1, round(SIDE / max(image.size)))
    return times * image.width, times * image.height
