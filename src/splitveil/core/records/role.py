"""`Role`: what a row of a card is, a floor, an attack or the worst case over them; told by the name of its attack."""

from enum import Enum

FREE = "mean"
"""The floor that needs no features, and so bounds what any defence can reach."""
FLOORS = {FREE: "mean image", "class_mean": "class mean", "nearest": "nearest image"}
"""What an adversary guesses without inverting anything, with what people call it; run first in every audit."""
_WORST = "worst_case:"


class Role(Enum):
    """Told apart by `of`."""

    FLOOR = "floor"
    ATTACK = "attack"
    WORST = "worst case"

    @classmethod
    def of(cls, attack: str) -> "Role":
        """Of a row by the name of its attack, with options or without."""
        if attack.startswith(_WORST):
            return cls.WORST
        return cls.FLOOR if attack.partition(":")[0] in FLOORS else cls.ATTACK


def worst_case(metric: str) -> str:
    """Name in place of an attack's: for each image the attack that leaks most of it by `metric`."""
    return _WORST + metric


def chosen_by(attack: str) -> str | None:
    """The metric of a worst case; None for all else."""
    return attack.removeprefix(_WORST) if Role.of(attack) is Role.WORST else None
