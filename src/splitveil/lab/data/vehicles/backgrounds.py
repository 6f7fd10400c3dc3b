"""What stands behind the vehicles: a wall or the sky above, a ground below, all drawn afresh for every image."""

import numpy as np

from splitveil.lab.data.base import Array

BACKGROUNDS = ("highway", "houses", "trees", "wall", "car park")
ABOVE = np.array([(150, 180, 214), (158, 142, 128), (62, 98, 56), (150, 98, 78), (186, 186, 182)], dtype=np.float32)
BELOW = np.array([(104, 104, 108), (126, 122, 118), (118, 112, 92), (132, 130, 126), (92, 94, 96)], dtype=np.float32)
SPREAD = 26.0
"""Levels by which a background's colours differ from its kind's."""


def scenery(kind: Array, size: int, rng: np.random.Generator) -> Array:
    """kind: (n,), places in `BACKGROUNDS` -> (n, 3, size, size) float32, in levels from 0 to 255."""
    n = len(kind)
    row = ((np.arange(size, dtype=np.float32) + 0.5) / size)[None, :, None]
    column = ((np.arange(size, dtype=np.float32) + 0.5) / size)[None, None]
    horizon, phase, pitch = (rng.uniform(a, b, (n, 1, 1)).astype(np.float32) for a, b in [(0.38, 0.6), (0, 1), (5, 9)])
    top = ABOVE[kind] + rng.normal(0, SPREAD, (n, 3)).astype(np.float32)
    ground = BELOW[kind] + rng.normal(0, SPREAD / 2, (n, 3)).astype(np.float32)
    kind = kind[:, None, None]
    fade = 1 + 0.3 * (row - 0.3)
    across, up = (column * pitch + phase) % 1, (row * pitch + phase) % 1
    windows = np.where((across < 0.5) & (up < 0.6), 0.62, 1.0)
    bricks = np.where(
        (up * 3 % 1 < 0.24) | ((column * pitch * 1.5 + np.floor(up * 3) / 2 + phase) % 1 < 0.12), 0.8, 1.0
    )
    blotches = _blotches(n, size, rng)
    pattern = np.choose(kind, [1 + 0.15 * (blotches - 0.5), windows, 0.5 + blotches, bricks, 1 + 0.2 * (across - 0.5)])
    lanes = (abs(column - 0.5 - (phase - 0.5) * row) < 0.012 + 0.02 * (row - horizon)) & (up < 0.6)
    bays = ((column + (phase - 0.5) * (row - horizon)) * 4 % 1) < 0.05
    marks = np.where(((kind == 0) & lanes) | ((kind == 4) & bays), 1.7, 1.0)
    road = marks * (0.9 + 0.25 * row) * (1 + 0.12 * (_blotches(n, size, rng) - 0.5))
    above = (row < horizon)[:, None]
    scene = np.where(above, top[:, :, None, None] * (fade * pattern)[:, None], ground[:, :, None, None] * road[:, None])
    return np.clip(scene, 0, 255).astype(np.float32)


def _blotches(n: int, size: int, rng: np.random.Generator) -> Array:
    """(n, size, size) in [0, 1]: coarse noise, linearly interpolated."""
    coarse = rng.random((n, 10, 10), dtype=np.float32)
    at = np.linspace(0, 8.99, size, dtype=np.float32)
    low, part = at.astype(np.int64), (at % 1).astype(np.float32)
    rows = coarse[:, low] * (1 - part)[None, :, None] + coarse[:, low + 1] * part[None, :, None]
    return rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
