"""`Question`: what is asked of an audit."""

from collections.abc import Callable
from dataclasses import dataclass

from splitveil.core.errors import InputError
from splitveil.lab.attacks.base import Attack
from splitveil.lab.attacks.view import PRESETS, Knows
from splitveil.lab.auditing.examiners import Examiner
from splitveil.lab.auditing.suites import Suite
from splitveil.lab.data import Dataset, Images
from splitveil.lab.metrics.judge import Judge

WHITE_BOX = PRESETS["white-box"]
PRIVATE, SHOWN = 500, 8


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of an audit; see `splitveil.lab.auditing.audit`.

    Raises:
        InputError: no image for the adversary.
    """

    suite: Suite
    knows: Knows = WHITE_BOX
    n: int = PRIVATE
    aux: Dataset | None = None
    aux_n: int | None = None
    metrics: tuple[str, ...] = ()
    judge: Judge | None = None
    plates: Dataset | None = None
    examiners: tuple[Callable[[Images], Examiner], ...] = ()
    samples: int = SHOWN
    against: tuple[Attack, ...] = ()

    def __post_init__(self) -> None:
        if self.aux_n is not None and self.aux_n < 1:
            raise InputError(
                f"expected at least one image for the adversary, got {self.aux_n}; give --aux-n a larger number."
            )

    @property
    def most_aux(self) -> int:
        """The most images that the adversary holds."""
        return min(self.suite.max_aux, self.aux_n or self.suite.max_aux)
