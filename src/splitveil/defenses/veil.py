"""Veil: a passage for what the task needs, trained against a rival, under clipped noise (ours)."""

from typing import ClassVar

from splitveil.defenses.chain import Chain
from splitveil.registry import Spec, Value


class Veil(Chain):
    """What each of its parts leaves open another one closes: ``bottleneck + adversarial + noise``.

    The passage sends few channels at half the resolution, those that the task listens to, so that a trained net starts
    nearly as good as it was; the rival's failure makes what crosses hard to invert; noise on few numbers of equal
    variance costs little accuracy. (Ours. The parts are in their own files; an ablation is a shorter chain.)

    Args:
        channels: sent; 0 is a quarter of the cut's.
        pool: 2 sends half the resolution, 1 all of it.
        adversarial: weight of the rival's failure, see ``adversarial``.
        sigma: noise-to-signal ratio, see ``noise``.

    Raises:
        InputError: an option out of range; when installed, a cut that is no feature map.
    """

    name: ClassVar[str] = "veil"

    def __init__(self, *, channels: int = 16, pool: int = 2, adversarial: float = 1.0, sigma: float = 0.3) -> None:
        parts = (
            Spec("bottleneck", {"channels": channels, "pool": pool}), Spec("adversarial", {"weight": adversarial}),
            Spec("noise", {"sigma": sigma}),
        )  # fmt: skip
        super().__init__(of=" + ".join(map(str, parts)))
        self.own: dict[str, Value] = {"channels": channels, "pool": pool, "adversarial": adversarial, "sigma": sigma}

    def options(self) -> dict[str, Value]:
        return self.own
