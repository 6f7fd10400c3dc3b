"""Who the vehicles are: body, paint, roof, decoration, wheels, plate; and the colours that these give their parts."""

from dataclasses import dataclass

import numpy as np

from splitveil.lab.data.base import Array
from splitveil.lab.data.vehicles.font import CHARACTERS, COLUMNS, ROWS, inked

TYPES = ("sedan", "hatchback", "suv", "van", "pickup")
PAINTS = {
    "white": (236, 236, 232), "silver": (172, 176, 182), "grey": (98, 102, 108), "black": (34, 34, 38),
    "red": (190, 28, 32), "blue": (28, 66, 168), "green": (26, 112, 62), "yellow": (236, 196, 28),
    "orange": (228, 112, 22), "brown": (110, 68, 40),
}  # fmt: skip
PLATES = 10**CHARACTERS
"""Different plates, and so the most identities that a set can have."""

NOTHING, SHADOW, BODY, LOWER, ROOF, GLASS, HEADLIGHT, TAILLIGHT, TYRE, HUB, SPOKE, GAP, RIM = range(13)
DOOR_STRIPE, LONG_STRIPE, DECAL, GRILLE, SEAM, TRIM, BED = range(13, 20)
PLATE = 32
"""The first texel of the plate; the others follow row by row."""
PARTS = PLATE + ROWS * COLUMNS
DECORATIONS = ((), (DOOR_STRIPE,), (LONG_STRIPE,), (DECAL,), (DOOR_STRIPE, DECAL))
"""Which of the parts that can be decorated are; the others have the body's paint."""
WHEELS = ((RIM,), (RIM, SPOKE), (RIM, SPOKE, HUB), (HUB,), (RIM, SPOKE, HUB, GAP))
"""Which parts of a wheel shine."""
FIXED = {
    GLASS: (44, 58, 72), HEADLIGHT: (250, 246, 214), TAILLIGHT: (206, 22, 26), TYRE: (24, 24, 26), GRILLE: (40, 42, 46),
    SEAM: (30, 30, 32), TRIM: (26, 26, 28), BED: (52, 50, 50),
}  # fmt: skip
SHINE, DULL = (206, 208, 212), (58, 58, 62)
GROUNDS = ((248, 248, 244), (246, 210, 60))
INK = (14, 16, 36)


@dataclass(frozen=True, slots=True, eq=False)
class Identities:
    """K vehicles. kind, paint: (K,) int64; plates: (K, 4) digits, no two alike; palette: (K, PARTS, 3) uint8."""

    kind: Array
    paint: Array
    plates: Array
    palette: Array


def draw_identities(count: int, seed: int) -> Identities:
    """The first `count` of up to 10,000 vehicles; the same seed gives the same first ones, however many are asked."""
    rng = np.random.default_rng([seed, 1])
    plates = rng.permutation(PLATES)[:count]
    plates = plates[:, None] // 10 ** np.arange(CHARACTERS)[::-1] % 10
    draws = rng.integers(0, 2**31, (PLATES, 6))[:count]
    kind, paint = draws[:, 0] % len(TYPES), draws[:, 1] % len(PAINTS)
    paints = np.array(list(PAINTS.values()))
    body = paints[paint]
    other = paints[(paint + 1 + draws[:, 2] % (len(PAINTS) - 1)) % len(PAINTS)]
    roof = np.choose((draws[:, 3] % 4)[:, None], [body, body, np.full_like(body, 30), other])
    palette = np.zeros((count, PARTS, 3), dtype=np.int64)
    palette[:, BODY], palette[:, ROOF], palette[:, LOWER] = body, roof, body * 0.62
    for part, colour in FIXED.items():
        palette[:, part] = colour
    for part in (DOOR_STRIPE, LONG_STRIPE, DECAL):
        chosen = np.array([part in parts for parts in DECORATIONS])[draws[:, 4] % len(DECORATIONS)]
        palette[:, part] = np.where(chosen[:, None], other, body)
    for part in (HUB, SPOKE, GAP, RIM):
        chosen = np.array([part in parts for parts in WHEELS])[draws[:, 5] % len(WHEELS)]
        palette[:, part] = np.where(chosen[:, None], SHINE, DULL)
    ground = np.array(GROUNDS)[draws[:, 3] // 4 % len(GROUNDS)]
    ink = inked(plates).reshape(count, -1, 1)
    palette[:, PLATE:] = np.where(ink, INK, ground[:, None])
    return Identities(kind, paint, plates, palette.astype(np.uint8))
