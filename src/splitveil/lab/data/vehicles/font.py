"""The digits of the plates, five texels wide and seven high, and a plate's texture."""

import numpy as np

from splitveil.lab.data.base import Array

CHARACTERS = 4
"""Digits on a plate."""
GLYPHS = (
    "01110 10001 10011 10101 11001 10001 01110",
    "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00110 01000 10000 11111",
    "11111 00010 00100 00010 00001 10001 01110",
    "00010 00110 01010 10010 11111 00010 00010",
    "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110",
    "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110",
    "01110 10001 10001 01111 00001 00010 01100",
)
"""Rows of each digit from the top, 1 for ink."""
MARGIN = 2
ROWS, COLUMNS = 7 + 2 * MARGIN, 6 * CHARACTERS - 1 + 2 * MARGIN
"""Texels of a plate."""


def inked(plates: Array) -> Array:
    """plates: (N, 4) digits -> (N, ROWS, COLUMNS) bool, where there is ink."""
    glyphs = np.array([[[c == "1" for c in row] for row in glyph.split()] for glyph in GLYPHS])
    out = np.zeros((len(plates), ROWS, COLUMNS), dtype=bool)
    for place in range(CHARACTERS):
        left = MARGIN + 6 * place
        out[:, MARGIN : MARGIN + 7, left : left + 5] = glyphs[plates[:, place]]
    return out
