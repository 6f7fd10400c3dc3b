"""`vehicle_pictures`: the vehicles before backgrounds, through the cameras."""

import numpy as np

from splitveil.core.errors import DataError
from splitveil.lab.data.base import Array, Dataset, Images
from splitveil.lab.data.spec import DataSpec
from splitveil.lab.data.vehicles.backgrounds import BACKGROUNDS, scenery
from splitveil.lab.data.vehicles.geometry import AZIMUTHS, VIEWPOINTS, Silhouette, silhouette
from splitveil.lab.data.vehicles.identities import NOTHING, PLATES, SHADOW, Identities, draw_identities
from splitveil.wire.pictures import Size

TRAIN, COUNT, SIZE, LEAST = 4000, 100, 64, 16
CAMERAS = (
    ((1.00, 1.00, 1.00), 1.00, 0.00, 3.0), ((1.10, 1.00, 0.86), 1.04, 0.08, 4.0), ((0.88, 0.98, 1.14), 0.94, 0.05, 5.0),
    ((1.00, 1.05, 0.95), 0.72, 0.04, 8.0), ((1.02, 0.97, 1.04), 1.18, 0.12, 3.0), ((0.94, 1.06, 0.94), 0.88, 0.16, 6.0),
    ((1.14, 0.96, 0.92), 0.82, 0.06, 7.0), ((0.96, 0.96, 1.06), 1.10, 0.02, 4.0),
)  # fmt: skip
"""Gain of red, green and blue; exposure; blur, the weight of each neighbour; spread of the noise in levels."""
PLATE = ("plate1", "plate2", "plate3", "plate4", "plate_x", "plate_y")
CELLS = len(VIEWPOINTS) * len(CAMERAS)
HELD = 13
"""Of an identity's 40 pairs of viewpoint and camera, those that only test images show."""
OVER = 2
"""Samples a pixel, each way."""
AT_ONCE = 128


def vehicle_pictures(spec: DataSpec) -> Dataset:
    """Rendered cars with readable plates, offline: ``vehicles?n=4000&identities=100&size=64&seed=0``.

    Classes are identities (body, paint, roof, decoration, wheels, plate); `n` training images and half as many test
    images show the same identities. Each identity's 40 pairs of viewpoint and camera are divided: 27 are seen in
    training, 13 in testing only, so that a test image always shows its car from a side or through a camera that is new
    for it. Backgrounds tell nothing of the identity.

    Attributes: ``viewpoint``, ``camera``, ``background``, ``type``, ``colour``; ``plate_visible`` (0 or 1),
    ``plate1`` to ``plate4``, its digits, and ``plate_x``, ``plate_y``, the pixel of its centre, -1 where it is not
    in the picture.

    Raises:
        DataError: a path was given, more than 10,000 identities, or images under 16 pixels.
    """
    spec.refuse_path()
    n, count, frame = spec.n or TRAIN, spec.identities or COUNT, spec.frame or (SIZE, SIZE)
    if not 2 <= count <= PLATES or min(frame) < LEAST:
        raise DataError(
            f"expected 2 to {PLATES:,} identities and a size of at least {LEAST}, got {count:,} and {min(frame)}; "
            "write vehicles?identities=100&size=64."
        )
    seed = spec.seed or 0
    who = draw_identities(count, seed)
    cells = np.random.default_rng([seed, 2]).permuted(np.tile(np.arange(CELLS), (count, 1)), axis=1)
    size = max(frame)
    train = _rendered(who, cells[:, HELD:], n, size, np.random.default_rng([seed, 3]))
    test = _rendered(who, cells[:, :HELD], max(2, n // 2), size, np.random.default_rng([seed, 4]))
    train, test = (_centre(part, frame) for part in (train, test))
    return Dataset(str(spec), train, test, tuple("".join(map(str, digits)) for digits in who.plates))


def _rendered(who: Identities, cells: Array, n: int, size: int, rng: np.random.Generator) -> Images:
    """As many images of each identity, n in all; `cells`: (K, m), pairs of viewpoint and camera that each may have."""
    y = np.arange(n) % len(who.kind)
    cell = cells[y, np.arange(n) // len(who.kind) % cells.shape[1]]
    viewpoint, camera = cell // len(CAMERAS), cell % len(CAMERAS)
    background = rng.integers(0, len(BACKGROUNDS), n)
    turn = rng.integers(0, 2**31, n)
    fine = min(6 * size // 2, 512)
    views = [
        silhouette(int(who.kind[k]), AZIMUTHS[v][t % len(AZIMUTHS[v])], fine)
        for k, v, t in zip(y, viewpoint, turn, strict=True)
    ]
    scale, roll = rng.uniform(0.9, 1.06, n), np.radians(rng.uniform(-2.5, 2.5, n))
    shift = rng.uniform(-0.04, 0.04, (n, 2))
    x = np.empty((n, 3, size, size), dtype=np.uint8)
    for start in range(0, n, AT_ONCE):
        part = slice(start, start + AT_ONCE)
        car, alpha = _placed(views[part], who.palette[y[part]], scale[part], roll[part], shift[part], size)
        behind = scenery(background[part], size, rng)
        x[part] = _through(behind * (1 - alpha) + car, camera[part], rng)
    centres = np.array([(-9, -9) if view.plate is None else view.plate for view in views]) - 0.5
    c, s = np.cos(roll) * scale, np.sin(roll) * scale
    row = (centres[:, 0] * s + centres[:, 1] * c + shift[:, 1] + 0.5) * size
    column = (centres[:, 0] * c - centres[:, 1] * s + shift[:, 0] + 0.5) * size
    visible = np.array([view.plate is not None for view in views])
    plate = np.concatenate([who.plates[y], np.stack([column, row], 1).clip(0, size - 1).astype(np.int64)], axis=1)
    attributes = {"viewpoint": viewpoint, "camera": camera, "background": background}
    attributes |= {"type": who.kind[y], "colour": who.paint[y], "plate_visible": visible.astype(np.int64)}
    attributes |= {name: np.where(visible, values, -1) for name, values in zip(PLATE, plate.T, strict=True)}
    return Images(x, y.astype(np.int64), attributes)


def _centre(images: Images, frame: Size) -> Images:
    """The middle of square images; plates whose centre is cut off are not visible in it."""
    (wide, high), side = frame, images.x.shape[3]
    left, top = (side - wide) // 2, (side - high) // 2
    if not (left or top):
        return images
    held = dict(images.attributes)
    column, row = held["plate_x"] - left, held["plate_y"] - top
    seen = (held["plate_visible"] == 1) & (column >= 0) & (column < wide) & (row >= 0) & (row < high)
    held |= {"plate_x": column, "plate_y": row}
    held |= {name: np.where(seen, values, -1) for name, values in held.items() if name in PLATE}
    held["plate_visible"] = seen.astype(np.int64)
    return Images(images.x[:, :, top : top + high, left : left + wide], images.y, held)


def _placed(
    views: list[Silhouette], palette: Array, scale: Array, roll: Array, shift: Array, size: int
) -> tuple[Array, Array]:
    """Colours times cover, (n, 3, size, size), and cover, (n, 1, size, size), of cars turned and moved in the frame.

    A shadow covers by half and has no colour.
    """
    n, wide, fine = len(views), OVER * size, views[0].parts.shape[0]
    grid = ((np.arange(wide) + 0.5) / wide - 0.5).astype(np.float32)
    c, s = (np.cos(roll) / scale).astype(np.float32), (np.sin(roll) / scale).astype(np.float32)
    dx, dy = shift.astype(np.float32).T[:, :, None, None]
    across, down = grid[None, None] - dx, grid[None, :, None] - dy
    u = across * c[:, None, None] + down * s[:, None, None] + 0.5
    v = down * c[:, None, None] - across * s[:, None, None] + 0.5
    column, row = (np.floor(t * fine).astype(np.int32) for t in (u, v))
    inside = (column >= 0) & (column < fine) & (row >= 0) & (row < fine)
    flat = np.clip(row, 0, fine - 1) * fine + np.clip(column, 0, fine - 1)
    parts, shade = np.empty((n, wide, wide), dtype=np.int16), np.empty((n, wide, wide), dtype=np.float32)
    for i, view in enumerate(views):
        parts[i], shade[i] = view.parts.take(flat[i]), view.shade.take(flat[i])
    parts[~inside] = NOTHING
    cover = np.where(parts == NOTHING, 0, np.where(parts == SHADOW, 0.55, 1)).astype(np.float32)
    colours = palette[np.arange(n)[:, None, None], parts] * (shade * (parts > SHADOW))[..., None]
    return _shrunk(colours.astype(np.float32)).transpose(0, 3, 1, 2), _shrunk(cover[..., None]).transpose(0, 3, 1, 2)


def _shrunk(x: Array) -> Array:
    """Means of the samples of each pixel. x: (n, OVER h, OVER w, c)."""
    total = np.zeros_like(x[:, ::OVER, ::OVER])
    for i, j in np.ndindex(OVER, OVER):
        total += x[:, i::OVER, j::OVER]
    return total / np.float32(OVER**2)


def _through(x: Array, camera: Array, rng: np.random.Generator) -> Array:
    """What the cameras make of a scene: blur, cast, exposure that varies a little, noise. x: (n, 3, h, w) levels."""
    gain = np.array([cast for cast, *_ in CAMERAS], dtype=np.float32)[camera]
    exposure, blur, noise = np.array([rest for _, *rest in CAMERAS], dtype=np.float32)[camera].T[:, :, None, None, None]
    for axis in (2, 3):
        padded = np.pad(x, [(1, 1) if a == axis else (0, 0) for a in range(4)], mode="edge")
        before, after = (padded.take(range(first, first + x.shape[axis]), axis) for first in (0, 2))
        x = x * (1 - 2 * blur) + blur * (before + after)
    bright = exposure * rng.uniform(0.92, 1.08, exposure.shape).astype(np.float32)
    x = x * gain[:, :, None, None] * bright + noise * rng.standard_normal(x.shape, dtype=np.float32)
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)
