"""Picture files to pixels, by one loader for lab and device, so that training and use see the same bytes. No torch.

Only picture formats of pixels are opened, and of several frames the first. A picture is turned upright by its EXIF
mark, loses its alpha, becomes grey or RGB of 8 bits, and is fitted: see `Picture` in the manifest.
"""

from splitveil.wire.pictures.faults import Faults, skipped_words
from splitveil.wire.pictures.films import FILMS, frames
from splitveil.wire.pictures.fitting import Size, cropped, sides
from splitveil.wire.pictures.listing import SUFFIXES, UNREAD, is_hidden, picture_files
from splitveil.wire.pictures.opening import FORMATS, MOST_PIXELS, BrokenPictureError, is_grey
from splitveil.wire.pictures.reading import read_picture, stacked, to_array
from splitveil.wire.pictures.recipe import LOADER, assumed, check_recipe, picture_words, recipe_for

__all__ = [
    "FILMS",
    "FORMATS",
    "LOADER",
    "MOST_PIXELS",
    "SUFFIXES",
    "UNREAD",
    "BrokenPictureError",
    "Faults",
    "Size",
    "assumed",
    "check_recipe",
    "cropped",
    "frames",
    "is_grey",
    "is_hidden",
    "picture_files",
    "picture_words",
    "read_picture",
    "recipe_for",
    "sides",
    "skipped_words",
    "stacked",
    "to_array",
]
