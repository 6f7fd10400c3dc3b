"""Which features are exactly zero, and nothing else about them: sparsity is not privacy.

A decoder on the zero pattern alone comes close to one on the values (SPARSE, auxiliary decoder: SSIM 0.428 from the
positions, 0.435 from the values that top-k left). So masks, pruned activations and dropped values are part of what
leaks, and a count of non-zeros says little about it.
"""

from typing import ClassVar

from torch import Tensor

from splitveil.lab.attacks.base import Attack, seed_view
from splitveil.lab.attacks.decoder import InverseNetwork
from splitveil.lab.attacks.view import Knows, View


class Positions(Attack):
    """The decoder, shown only which features are zero and none of their values.

    On 1 where a feature is not zero and 0 where it is; without exact zeros the mean image. Records
    ``zeros``, the share of the private features that are exactly zero.

    Args:
        size: of the decoder, see `InverseNetwork`.
        epochs: passes over the adversary's images.
        steps: least number of optimiser steps.
    """

    name: ClassVar[str] = "positions"
    needs = Knows.AUX | Knows.QUERIES
    scale_free: ClassVar[bool] = True

    def __init__(self, *, size: str = "small", epochs: int = 6, steps: int = 600) -> None:
        self.size, self.epochs, self.steps = size, epochs, steps
        self.decoder = InverseNetwork(size=size, epochs=epochs, steps=steps)

    def shares(self, *, stochastic: bool) -> tuple[str, ...]:
        return ()  # its decoder sees other features

    def run(self, view: View) -> Tensor:
        seed_view(view, self.name)
        seen = pattern(view.z)
        zeros = 1 - seen.mean().item()
        view.record(zeros=zeros)
        if zeros == 0:
            return view.aux.images().mean(0).expand(len(view.z), -1, -1, -1)
        masked = view.within(
            self.name,
            self.needs,
            z=seen,
            observe=lambda index: pattern(view.observe(index)),
            query=lambda x: pattern(view.query(x)),
        )
        return self.decoder.run(masked)


def pattern(z: Tensor) -> Tensor:
    """1 where z is not zero. z: (N, *cut) -> (N, *cut) of zeros and ones."""
    return (z != 0).to(z.dtype)
