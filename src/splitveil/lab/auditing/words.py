"""What an attack or a further number of a row says, in one line: `Card.words`, which reports print."""

from splitveil.core.records.card import plain_name
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.auditing import judging, reading
from splitveil.lab.metrics import METRICS


def words_of(name: str) -> str:
    """From whoever it belongs to, a plug-in by its docstring; empty where nobody described it."""
    plain = plain_name(name)
    return ATTACKS.about(plain) or METRICS.about(plain) or (judging.ABOUT | reading.ABOUT).get(plain, "")
