"""The undefended split: the row that every other one is compared with."""

from typing import ClassVar

from torch import Tensor, nn

from splitveil.lab.defenses.base import Defense


class Undefended(Defense):
    """Features leave the device as they are."""

    name: ClassVar[str] = "none"

    def __init__(self) -> None:
        super().__init__()
        self.taken: nn.Module | None = None

    @classmethod
    def beside(cls, other: Defense) -> "Undefended":
        """Nothing but the part of the edge half that the other defence took over, if any."""
        made = cls()
        made.taken = other.rest()
        return made

    @property
    def acts(self) -> bool:
        return self.taken is not None

    def rest(self) -> nn.Module | None:
        return self.taken

    def apply_noise(self, z: Tensor, noise: Tensor | None) -> Tensor:
        return z if self.taken is None else self.taken(z)
