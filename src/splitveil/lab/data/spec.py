"""A data set as written on the command line: ``NAME[:PATH][?key=value&key=value]``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from splitveil.core.errors import DataError
from splitveil.core.registry import nearest
from splitveil.wire.pictures import Size, sides

CACHE = Path("~/.cache/splitveil")


@dataclass(frozen=True, slots=True)
class DataSpec:
    """What was asked for; every source gets one."""

    name: str
    path: Path | None = None
    size: int | Size | None = None
    """Pixels; all images become squares of that size, or of (width, height)."""
    n: int | None = None
    """Training images to keep, every class in its share."""
    channels: int | None = None
    """1 or 3."""
    download: bool = False
    root: Path = CACHE
    """Where downloaded sets are kept."""
    identities: int | None = None
    """Of sets that are drawn: how many different ones."""
    seed: int | None = None
    """Of sets that are drawn."""
    skip_broken: bool = False
    """Leave out pictures that cannot be read, and count them."""

    @property
    def frame(self) -> Size | None:
        """`size` as (width, height)."""
        return None if self.size is None else sides(self.size)

    @classmethod
    def parse(cls, text: str) -> "DataSpec":
        """Read `text`.

        Raises:
            DataError: an unknown key, the message gives the nearest; or a value that this key cannot have.
        """
        where, _, query = text.partition("?")
        name, _, path = where.partition(":")
        options: dict[str, object] = {}
        for item in filter(None, query.split("&")):
            key, eq, value = item.partition("=")
            if not eq:
                raise DataError(f"expected key=value after the ? of {text!r}, got {item!r}; write ?size=32.")
            if key not in KEYS:
                raise DataError(
                    f"data sets have no option {key!r}.{nearest(key, KEYS)} Options: {', '.join(KEYS)}; "
                    "write for example ?size=32&n=1000."
                )
            options[key] = KEYS[key](key, value)
        return cls(name, Path(path) if path else None, **options)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """The name with what changes the images; of the path only its last part."""
        size = "x".join(map(str, self.size)) if isinstance(self.size, tuple) else self.size
        asked = {"size": size, "n": self.n, "channels": self.channels}
        asked |= {"identities": self.identities, "seed": self.seed}
        query = "&".join(f"{key}={value}" for key, value in asked.items() if value is not None)
        return self.name + (f":{self.path.name or self.path}" if self.path else "") + (f"?{query}" if query else "")

    def refuse_drawing(self) -> None:
        """For sets that are not drawn.

        Raises:
            DataError: a number of identities or a seed was given.
        """
        if given := [f"{key}=" for key in ("identities", "seed") if getattr(self, key) is not None]:
            raise DataError(f"data set {self.name!r} is not drawn and takes no {' and no '.join(given)}; leave it out.")

    def need_path(self) -> Path:
        """The path.

        Raises:
            DataError: none was given.
        """
        if self.path is None:
            raise DataError(f"data set {self.name!r} needs a path; write {self.name}:PATH.")
        return self.path.expanduser()

    def refuse_path(self) -> None:
        """For sets that lie in one place.

        Raises:
            DataError: a path was given.
        """
        if self.path is not None:
            raise DataError(f"data set {self.name!r} takes no path, got {self.path}; write {self.name} alone.")


def _positive(key: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise DataError(f"expected a positive whole number for {key}, got {value!r}; write for example {key}=32.")
    return int(value)


def _size(key: str, value: str) -> int | Size:
    """``32``, or ``64x48``: width and height."""
    sides = value.lower().split("x")
    if len(sides) == 1:
        return _positive(key, value)
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise DataError(
            f"expected width x height, two positive whole numbers, for {key}, got {value!r}; write for example "
            f"{key}=64x48."
        )
    width, height = int(sides[0]), int(sides[-1])
    return width if width == height else (width, height)


def _seed(key: str, value: str) -> int:
    if not value.isdecimal():
        raise DataError(f"expected a whole number of at least 0 for {key}, got {value!r}; write for example {key}=1.")
    return int(value)


def _channels(key: str, value: str) -> int:
    if value not in ("1", "3"):
        raise DataError(f"expected 1 or 3 for {key}, got {value!r}; write {key}=1 for grey, {key}=3 for colour.")
    return int(value)


def _switch(key: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise DataError(f"expected true or false for {key}, got {value!r}; write {key}=true.")
    return value.lower() == "true"


KEYS: Mapping[str, Callable[[str, str], object]] = {
    "size": _size,
    "n": _positive,
    "channels": _channels,
    "download": _switch,
    "root": lambda _, value: Path(value),
    "identities": _positive,
    "seed": _seed,
    "skip_broken": _switch,
}
