"""The attack that another one builds on."""

from splitveil.core.errors import InputError
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.base import Attack


def image_attack(spec: str, whose: str) -> Attack:
    """The attack that `spec` describes, for another one, called `whose`, that builds on its images.

    Raises:
        InputError: it gives labels, or does not have such options.
    """
    found = ATTACKS.build(spec)
    if not isinstance(found, Attack):
        raise InputError(f"{whose} builds on an attack that gives images, {found.name!r} gives labels; use decoder.")
    return found
