"""Which files are pictures, by name."""

from pathlib import Path

UNREAD = frozenset({".heic", ".heif", ".avif", ".jxl", ".jp2"})
"""Photos all the same: they are refused by name, and not passed over as if they were none."""
SUFFIXES = UNREAD | {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp",
}  # fmt: skip


def is_there(path: Path) -> bool:
    """Whether it is a file, or a link to one that is gone: that is a picture which cannot be read."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def picture_files(folder: Path) -> list[Path]:
    """Files at any depth under `folder` with one of `SUFFIXES`, sorted; hidden files and folders are left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not is_hidden(p.relative_to(folder)))
    return sorted(p for p in found if is_there(p))


def is_hidden(path: Path) -> bool:
    """Whether this file or a folder on its way, as far as `path` names it, begins with a dot."""
    return any(part.startswith(".") for part in path.parts)
