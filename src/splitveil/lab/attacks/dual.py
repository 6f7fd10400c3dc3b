"""The best dense linear inverse of features of any size: ridge regression in its dual form.

`linear` has one window for all positions, and one map of all features where these are few. Features of which nobody
knows what lies beside what, such as those that an edge has shuffled, leave only the map of all of them, whose unknowns
are as many as the images that it rests on.
"""

from typing import ClassVar

import torch
from torch import Tensor

from splitveil.core.progress import task
from splitveil.lab.attacks.base import Attack, seed_view
from splitveil.lab.attacks.parts.dual import DenseInverse
from splitveil.lab.attacks.view import Knows, View


class Dual(Attack):
    """The best linear map from all features to all pixels, however many there are, in closed form.

    Ridge regression by the images' products (Saunders, Gammerman and Vovk, ICML 1998), each feature in units of its own
    spread; the penalty is the one that is best on images that the adversary set aside.
    """

    name: ClassVar[str] = "dual"
    needs = Knows.AUX | Knows.QUERIES
    scale_free: ClassVar[bool] = True

    def run(self, view: View) -> Tensor:
        seed_view(view, self.name)
        aux, valid = view.aux, view.aux.held_out
        draws = 2 if view.stochastic else 1
        view.record(draws=float(draws))

        def read(index: Tensor) -> tuple[Tensor, Tensor]:
            index = index.repeat(draws)
            return view.observe(index), aux.images(index)

        with task(f"{self.name} {view.label}".strip(), 1), torch.no_grad():
            held = (view.observe(valid), aux.images(valid))
            inverse = DenseInverse(read, len(aux) - len(valid), held)
            return torch.cat([inverse(part) for part in view.z.split(256)])
