"""Picture files, opened without trusting them."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from splitveil.core.errors import DataError
from splitveil.wire.pictures.listing import UNREAD

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""What Pillow may take a file for, whatever its name: with all that it knows, an EPS would start Ghostscript."""

MOST_PIXELS = 2 * 89_478_485
"""Of one picture: where Pillow itself stops, unless someone has turned that off."""

GREY = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N"})

_QUIET = threading.RLock()
"""The filters of warnings belong to the process: two threads that change them at once would leave them changed."""


class BrokenPictureError(DataError):
    """A picture file that cannot be read, and why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot read the picture {path} ({reason}); mend or remove it.")
        self.path, self.reason = path, reason


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The file as Pillow's picture, its pixels not yet decoded; whatever goes wrong in the block is of this file.

    Raises:
        BrokenPictureError: no file, no picture of `FORMATS`, too large, damaged, or of a kind that is refused.
    """
    with _QUIET, warnings.catch_warnings():
        # Of large pictures and of EXIF blocks: what they mean for the pixels is decided here, not on stderr.
        warnings.simplefilter("ignore")
        try:
            if path.exists() and not path.is_file():
                raise BrokenPictureError(path, "it is no file")
            with path.open("rb") as file, Image.open(file, formats=FORMATS) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise Image.DecompressionBombError
                yield picture
        except BrokenPictureError:
            raise
        except UnidentifiedImageError:
            kinds = ", ".join(FORMATS)
            remedy = ": convert it to JPEG or PNG" if path.suffix.lower() in UNREAD else ""
            raise BrokenPictureError(path, f"no picture that Pillow knows as one of {kinds}{remedy}") from None
        except Image.DecompressionBombError:
            raise BrokenPictureError(path, f"more than {MOST_PIXELS:,} pixels") from None
        except OSError as error:
            raise BrokenPictureError(path, error.strerror or _words(error)) from None
        except Exception as error:  # decoders raise whatever damaged bytes make them stumble over
            raise BrokenPictureError(path, _words(error)) from None


def is_grey(path: Path) -> bool:
    """Whether the file says that it holds grey values; its pixels are not decoded.

    Raises:
        BrokenPictureError: as `opened`.
    """
    with opened(path) as picture:
        return picture.mode in GREY


def _words(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".;") or type(error).__name__
