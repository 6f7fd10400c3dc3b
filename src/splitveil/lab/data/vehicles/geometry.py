"""The shape of the vehicles: planes in space, seen in perspective, as maps of which part stands where."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from splitveil.lab.data.base import Array
from splitveil.lab.data.vehicles import identities as part
from splitveil.lab.data.vehicles.font import COLUMNS, ROWS

VIEWPOINTS = ("front", "rear", "side", "front three-quarter", "rear three-quarter")
AZIMUTHS = (
    (-6, 0, 6), (174, 180, 186), (84, 97, 263, 276), (-27, -19, 19, 27), (153, 161, 199, 207),
)  # fmt: skip
"""Degrees from straight ahead to the car's left, of each viewpoint."""
ELEVATION, DISTANCE = 13.0, 8.0
MARGIN = 0.05
"""Free share of the frame on each side of the car."""
WIDTH, CABIN, CLEARANCE = 2.0, 1.76, 0.26
PLATE_SIZE = (1.16, 0.44)
LIGHT = np.array([0.35, 0.45, 0.82])

Paint: TypeAlias = Callable[[Array, Array], Array]
"""u, v of a plane, from 0 to 1 to the right and upwards as seen from outside -> parts, NOTHING where there is none."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A body in units of half its width: lengths along x (forward), heights along z."""

    length: float
    belt: float
    roof: float
    nose: float
    """Height of the bonnet's front edge."""
    cabin: tuple[float, float, float, float]
    """x of the windscreen's foot and head, of the rear window's head and foot."""
    bed: bool = False


SHAPES = (
    Shape(3.5, 1.02, 1.62, 0.92, (0.75, 0.25, -0.75, -1.2)),
    Shape(3.1, 1.04, 1.68, 0.94, (0.85, 0.35, -1.2, -1.5)),
    Shape(3.4, 1.16, 1.92, 1.08, (0.8, 0.45, -1.45, -1.65)),
    Shape(3.5, 1.2, 2.15, 1.08, (1.4, 1.0, -1.7, -1.74)),
    Shape(3.7, 1.12, 1.8, 1.02, (0.85, 0.45, -0.3, -0.4), bed=True),
)
"""In the order of `identities.TYPES`."""


@dataclass(frozen=True, slots=True, eq=False)
class Silhouette:
    """A shape from one side. parts: (S, S) int16; shade: (S, S) float32; plate: x, y of its centre, 0 to 1, or None."""

    parts: Array
    shade: Array
    plate: tuple[float, float] | None


@lru_cache(maxsize=512)
def silhouette(kind: int, azimuth: int, resolution: int) -> Silhouette:
    """The vehicle of this type as a camera at `azimuth` degrees sees it, filling a frame of `resolution` pixels."""
    shape = SHAPES[kind]
    eye, project = _camera(shape, azimuth, resolution)
    parts = np.zeros((resolution, resolution), dtype=np.int16)
    shade = np.ones((resolution, resolution), dtype=np.float32)
    rows, columns = np.mgrid[:resolution, :resolution] + 0.5
    pixels = np.stack([columns.ravel(), rows.ravel(), np.ones(resolution**2)])
    plate = None
    for origin, right, up, paint in _planes(shape):
        normal = np.cross(right, up)
        if normal @ (eye - origin) <= 0:
            continue
        onto = project @ np.array([[*right, 0], [*up, 0], [*origin, 1]]).T
        u, v, w = np.linalg.inv(onto) @ pixels
        inside = np.flatnonzero((u >= 0) & (v >= 0) & (u < w) & (v < w) & (w > 0))
        u, v = u[inside] / w[inside], v[inside] / w[inside]
        found = paint(u, v)
        drawn = inside[found != part.NOTHING]
        parts.flat[drawn] = found[found != part.NOTHING]
        bright = 0.66 + 0.4 * max(0.0, float(normal @ LIGHT) / float(np.linalg.norm(normal)))
        shade.flat[drawn] = (bright * (0.9 + 0.16 * v))[found != part.NOTHING]
        if paint is _plate:
            x, y, w = onto @ np.array([0.5, 0.5, 1.0])
            plate = (x / w / resolution, y / w / resolution)
    shade[(parts == part.SHADOW) | (parts == part.NOTHING)] = 1
    shade[parts >= part.PLATE] = 1
    return Silhouette(parts, shade, plate)


def _camera(shape: Shape, azimuth: float, resolution: int) -> tuple[Array, Array]:
    """Where it stands, and the 3x4 projection to pixels that makes the car fill the frame."""
    a, e = np.radians(azimuth), np.radians(ELEVATION)
    target = np.array([0, 0, shape.roof / 2])
    eye = target + DISTANCE * np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    ahead = (target - eye) / DISTANCE
    right = np.cross(ahead, [0, 0, 1])
    right /= np.linalg.norm(right)
    turn = np.stack([right, -np.cross(right, ahead), ahead])
    project = np.concatenate([turn, -(turn @ eye)[:, None]], axis=1)
    half = shape.length / 2
    corners = [(x, y, z, 1) for x in (-half, half) for y in (-1, 1) for z in (0, shape.roof * 0.97)]
    seen = project @ np.array(corners).T
    seen = seen[:2] / seen[2]
    low, high = seen.min(1), seen.max(1)
    scale = resolution * (1 - 2 * MARGIN) / (high - low).max()
    x, y = resolution / 2 - scale * (low + high) / 2
    frame = np.array([[scale, 0, x], [0, scale, y + 0.02 * resolution], [0, 0, 1]])
    return eye, frame @ project


def _planes(shape: Shape) -> Iterator[tuple[Array, Array, Array, Paint]]:
    """Origin, way to the right, way up and paint of every plane, what lies behind first."""
    half, side, low = shape.length / 2, WIDTH / 2, CLEARANCE
    foot, head, tail, heel = shape.cabin
    belt, roof, nose, inner = shape.belt, shape.roof, shape.nose, CABIN / 2

    def quad(a: tuple[float, ...], b: tuple[float, ...], c: tuple[float, ...], paint: Paint):  # type: ignore[no-untyped-def]
        origin = np.array(a, dtype=float)
        return origin, np.array(b) - origin, np.array(c) - origin, paint

    yield quad((-half - 0.2, side + 0.15, 0), (-half - 0.2, -side - 0.15, 0), (half + 0.2, side + 0.15, 0), _shadow)
    for y in (-side, side - 0.36):
        yield quad((half - 0.3, y, 0), (half - 0.3, y + 0.36, 0), (half - 0.3, y, 0.6), _all(part.TYRE))
        yield quad((0.3 - half, y + 0.36, 0), (0.3 - half, y, 0), (0.3 - half, y + 0.36, 0.6), _all(part.TYRE))
    yield quad((foot, -side, belt), (foot, side, belt), (heel, -side, belt), _all(part.BODY))
    yield quad((half, -side, nose), (half, side, nose), (foot, -side, belt), _bonnet)
    yield quad((-half, side, belt), (-half, -side, belt), (heel, side, belt), _bed if shape.bed else _bonnet)
    yield quad((half, -side, low), (half, side, low), (half, -side, nose), _front)
    yield quad((-half, side, low), (-half, -side, low), (-half, side, belt), _rear)
    wide, high = PLATE_SIZE
    foot_z = low + 0.08
    ahead, behind = half + 0.01, -half - 0.01
    yield quad((ahead, -wide / 2, foot_z), (ahead, wide / 2, foot_z), (ahead, -wide / 2, foot_z + high), _plate)
    yield quad((behind, wide / 2, foot_z), (behind, -wide / 2, foot_z), (behind, wide / 2, foot_z + high), _plate)
    for y, front in ((side, half), (-side, -half)):
        yield quad((front, y, low), (-front, y, low), (front, y, belt), _flank(shape, forward=y < 0))
        for x in (half - 0.72, 0.72 - half):
            r, out = 0.4, y * 1.01
            towards = r if y < 0 else -r
            yield quad((x - towards, out, 0), (x + towards, out, 0), (x - towards, out, 2 * r), _wheel)
    yield quad((foot, -inner, belt), (foot, inner, belt), (head, -inner, roof), _screen)
    yield quad((heel, inner, belt), (heel, -inner, belt), (tail, inner, roof), _screen)
    for y, front, back in ((inner, foot, heel), (-inner, heel, foot)):
        yield quad((front, y, belt), (back, y, belt), (front, y, roof), _pane(shape, forward=y < 0))
    yield quad((head, -inner, roof), (head, inner, roof), (tail, -inner, roof), _top)


def _all(which: int) -> Paint:
    return lambda u, v: np.full(len(u), which)


def _shadow(u: Array, v: Array) -> Array:
    return np.where((2 * u - 1) ** 4 + (2 * v - 1) ** 4 < 1, part.SHADOW, part.NOTHING)


def _bonnet(u: Array, v: Array) -> Array:
    found = np.full(len(u), part.BODY)
    found[abs(u - 0.5) < 0.13] = part.LONG_STRIPE
    return found


def _bed(u: Array, v: Array) -> Array:
    return np.where((abs(u - 0.5) < 0.42) & (v > 0.06) & (v < 0.92), part.BED, part.BODY)


def _front(u: Array, v: Array) -> Array:
    found = np.full(len(u), part.BODY)
    found[v < 0.3] = part.LOWER
    found[(v > 0.75) & (v < 0.95) & (abs(u - 0.5) < 0.26)] = part.GRILLE
    found[(v > 0.66) & (v < 0.94) & (abs(u - 0.5) > 0.31) & (abs(u - 0.5) < 0.48)] = part.HEADLIGHT
    return found


def _rear(u: Array, v: Array) -> Array:
    found = np.full(len(u), part.BODY)
    found[v < 0.3] = part.LOWER
    found[(v > 0.55) & (v < 0.9) & (abs(u - 0.5) > 0.38) & (abs(u - 0.5) < 0.49)] = part.TAILLIGHT
    found[abs(v - 0.78) < 0.02] = part.SEAM
    return found


def _plate(u: Array, v: Array) -> Array:
    row, column = ((1 - v) * ROWS).astype(int), (u * COLUMNS).astype(int)
    texel: Array = np.clip(row, 0, ROWS - 1) * COLUMNS + np.clip(column, 0, COLUMNS - 1)
    return part.PLATE + texel


def _flank(shape: Shape, *, forward: bool) -> Paint:
    """The side of the lower body; `forward` where the nose is to the right."""
    half, height = shape.length / 2, shape.belt - CLEARANCE

    def paint(u: Array, v: Array) -> Array:
        x = shape.length * (u - 0.5) * (1 if forward else -1)
        z = CLEARANCE + v * height
        slope = np.interp(x, [shape.cabin[0], half], [shape.belt, shape.nose])
        found = np.full(len(u), part.BODY)
        found[v < 0.16] = part.LOWER
        found[abs(v - 0.62) < 0.11] = part.DOOR_STRIPE
        middle = (shape.cabin[1] + shape.cabin[2]) / 2
        found[(x - middle) ** 2 + (z - CLEARANCE - height * 0.55) ** 2 < 0.07] = part.DECAL
        for door in (shape.cabin[0] - 0.05, middle + 0.35):
            found[(abs(x - door) < 0.02) & (v > 0.16)] = part.SEAM
        found[(x > half - 0.16) & (v > 0.62)] = part.HEADLIGHT
        found[(x < 0.14 - half) & (v > 0.6)] = part.TAILLIGHT
        for axle in (half - 0.72, 0.72 - half):
            found[(x - axle) ** 2 + (z - 0.4) ** 2 < 0.48**2] = part.TRIM
        found[z > slope] = part.NOTHING
        return found

    return paint


def _wheel(u: Array, v: Array) -> Array:
    x, z = 2 * u - 1, 2 * v - 1
    r = np.hypot(x, z)
    found = np.full(len(u), part.NOTHING)
    found[r < 1] = part.TYRE
    found[r < 0.68] = part.RIM
    found[r < 0.56] = part.GAP
    found[(r < 0.56) & (np.cos(5 * np.arctan2(z, x)) > 0.2)] = part.SPOKE
    found[r < 0.2] = part.HUB
    return found


def _screen(u: Array, v: Array) -> Array:
    return np.where((abs(u - 0.5) < 0.44) & (v > 0.08) & (v < 0.9), part.GLASS, part.ROOF)


def _pane(shape: Shape, *, forward: bool) -> Paint:
    """The side of the cabin, a trapezoid with two windows."""
    foot, head, tail, heel = shape.cabin

    def paint(u: Array, v: Array) -> Array:
        x = heel + (foot - heel) * (u if forward else 1 - u)
        ahead, behind = foot + (head - foot) * v, heel + (tail - heel) * v
        found = np.full(len(u), part.ROOF)
        middle = (head + tail) / 2
        found[(v > 0.1) & (v < 0.84) & (x < ahead - 0.12) & (x > behind + 0.12) & (abs(x - middle) > 0.05)] = part.GLASS
        found[(x > ahead) | (x < behind)] = part.NOTHING
        return found

    return paint


def _top(u: Array, v: Array) -> Array:
    return np.where(abs(u - 0.5) < 0.14, part.LONG_STRIPE, part.ROOF)
