"""The steps from a picture file to a model's input, as the record that a bundle's manifest holds."""

from typing import Literal

from splitveil.core.errors import BundleError
from splitveil.core.records import Manifest, Picture
from splitveil.wire.pictures.fitting import FITS
from splitveil.wire.pictures.values import CHANNELS

LOADER = 1
"""Version of this package: another one would give other pixels for the same file and record."""


def recipe_for(
    image_shape: tuple[int, int, int], *, source: Literal["files", "arrays"] = "arrays", crop: str = "centre"
) -> Picture | None:
    """Centre crop (or ``crop="none"``, a squeeze) and antialiased resize to (C, H, W); None where no picture has C."""
    channels, height, width = image_shape
    if channels not in CHANNELS:
        return None
    return Picture(
        loader=LOADER, source=source, size=(width, height), channels=channels, orientation="exif", crop=crop,
        resample="bilinear", antialias=True,
    )  # fmt: skip


def assumed(manifest: Manifest) -> Picture | None:
    """The manifest's recipe; where it has none, that of all bundles from before, a guess which `picture_words` tells.

    Raises:
        BundleError: a recipe that this version cannot follow.
    """
    found = manifest.picture or recipe_for(manifest.image_shape)
    if found is not None:
        check_recipe(found, manifest.image_shape)
    return found


def check_recipe(picture: Picture, image_shape: tuple[int, int, int]) -> None:
    """Make sure that this version reads pictures as `picture` says, into (C, H, W).

    Raises:
        BundleError: it does not.
    """
    known = recipe_for(image_shape, source=picture.source, crop=picture.crop)
    if picture.crop not in FITS or picture.channels not in CHANNELS or picture != known:
        raise BundleError(
            f"expected pictures read by loader {LOADER} into {image_shape}, got {picture.model_dump_json()}; "
            "use the SplitVeil that wrote the bundle."
        )


def picture_words(picture: Picture) -> str:
    """What makes an input of a picture: the same for every net, for each normalises by itself."""
    width, height = picture.size
    colour = "grey (luma)" if picture.channels == 1 else "RGB"
    fit = "centre cropped to that shape" if picture.crop == "centre" else "squeezed, not cropped"
    given = "" if picture.source == "files" else "; trained on arrays as given, not on picture files"
    return (
        f"{colour} picture turned upright by EXIF, first frame, without alpha, resized to {width} x {height} "
        f"(width x height), {fit}, bilinear with antialiasing; 8 bits over 255 as float32 in [0, 1], channels first; "
        f"no other normalisation, which is part of the edge half{given}"
    )
