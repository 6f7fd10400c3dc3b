"""Which files are pictures, by name."""

from pathlib import Path

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})


def picture_files(folder: Path) -> list[Path]:
    """Files at any depth under `folder` with one of `SUFFIXES`, sorted; hidden files and folders are left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not is_hidden(p.relative_to(folder)))
    return sorted(p for p in found if p.is_file())


def is_hidden(path: Path) -> bool:
    """Whether this file or a folder on its way, as far as `path` names it, begins with a dot."""
    return any(part.startswith(".") for part in path.parts)
