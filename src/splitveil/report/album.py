"""Every distinct picture of a page, once: inputs recur everywhere, and a worst case repeats its attacks' guesses."""

import base64
from dataclasses import dataclass

from splitveil.report.folder import Bytes
from splitveil.report.png import encode, picture


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture as the page defines it: the anchor to use it by, its PNG as a data URI and its size in pixels."""

    anchor: str
    uri: str
    width: int
    height: int


class Album:
    """Pictures in the order in which they were first added."""

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[int, ...], bytes], Thumbnail] = {}

    def add(self, image: Bytes) -> Thumbnail:
        """(C, H, W) uint8 -> the picture that stands for it."""
        key = (image.shape, image.tobytes())
        if key not in self._known:
            shown = picture(image)
            uri = "data:image/png;base64," + base64.b64encode(encode(shown)).decode()
            self._known[key] = Thumbnail(f"p{len(self._known) + 1}", uri, shown.width, shown.height)
        return self._known[key]

    @property
    def pictures(self) -> tuple[Thumbnail, ...]:
        """All of them."""
        return tuple(self._known.values())
