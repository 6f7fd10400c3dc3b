"""Frames of a camera or a film as pictures, where OpenCV is installed (extra ``camera``)."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from splitveil.core.errors import DataError, MissingExtraError

FILMS = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})

ATOMS = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
"""The first parts of an MP4 or MOV are called so."""
BEGINS = (b"\x1a\x45\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"G")
"""Matroska and WebM; MPEG's program, elementary and transport streams."""


def frames(source: int | Path, most: int) -> Iterator[Image.Image]:
    """Up to `most` frames, in grey or RGB, of a camera (its number, 0 for the first) or of a film's file.

    Raises:
        MissingExtraError: OpenCV is not installed.
        DataError: no such camera or file, or it gives no frame.
    """
    what = f"camera {source}" if isinstance(source, int) else f"the film {source}"
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError(
            f"{what} needs OpenCV ({error}); pip install 'splitveil[camera]', or give pictures."
        ) from None
    if isinstance(source, Path):
        _check_begin(source, what)
    capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
    try:
        given = 0
        for pixels in islice(_read(capture), most):
            given += 1
            # OpenCV gives blue, green, red.
            yield Image.fromarray(pixels if pixels.ndim == 2 else pixels[:, :, 2::-1].copy())
        if not given:
            raise DataError(f"{what} gives no frame; check that it is there and that nothing else uses it.")
    finally:
        capture.release()


def _check_begin(path: Path, what: str) -> None:
    """OpenCV takes a file for what it holds: a playlist named ``.mp4`` would lead it to other files."""
    if not path.is_file():
        raise DataError(f"cannot read {what}: no such file; check the path.")
    try:
        with path.open("rb") as file:
            begin = file.read(12)
    except OSError as error:
        raise DataError(f"cannot read {what}: {error.strerror}; check the path.") from None
    avi = begin[:4] == b"RIFF" and begin[8:] == b"AVI "
    if not (avi or begin[4:8] in ATOMS or begin.startswith(BEGINS)):
        raise DataError(f"{what} is none by its content; give an MP4, MOV, AVI, Matroska, WebM or MPEG film.")


def _read(capture: Any) -> Iterator[Any]:
    while True:
        there, pixels = capture.read()
        if not there:
            return
        yield pixels
