"""Numbers out of a request, counted and looked at before an array is made of them."""

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

WHOLE: frozenset[type] = frozenset({int})
NUMBERS: frozenset[type] = frozenset({int, float})


class NoNumbersError(ValueError):
    """Something among the values is no number, or lists differ in length."""


def flat(values: Any, expected: int) -> Any:
    """Values as one row, flat or nested evenly; never more than `expected` of them are put in a row.

    Args:
        values: a list of JSON's, or a repeated field of a message, which holds one type of number alone.
        expected: how many there should be; what comes back may have fewer or, where it was flat already, more.

    Raises:
        NoNumbersError: lists of several lengths, or no list at all.
    """
    if values is None or isinstance(values, str | bytes | dict) or not hasattr(values, "__len__"):
        raise NoNumbersError
    while isinstance(values, list) and values and isinstance(values[0], list):
        width = len(values[0])
        if any(type(row) is not list or len(row) != width for row in values):
            raise NoNumbersError
        if width * len(values) > expected:
            return range(width * len(values))  # too many: a count is all that is needed of them
        values = list(chain.from_iterable(values))
    return values


def as_array(values: Any, *, whole: bool) -> NDArray[Any]:
    """One row of numbers -> (n,), 64 bits each. whole: integers alone.

    Raises:
        NoNumbersError: words, truths, lists, or integers beyond 64 bits.
    """
    kinds: set[type] = set(map(type, values)) if isinstance(values, list) else {int if whole else float}
    if not kinds <= (WHOLE if whole else NUMBERS):
        raise NoNumbersError
    try:
        return np.fromiter(values, np.int64 if kinds == WHOLE else np.float64, len(values))
    except (OverflowError, TypeError, ValueError):
        raise NoNumbersError from None
