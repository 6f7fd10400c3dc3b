"""Veil: a passage for what the task needs, trained against a rival and towards the teacher, under noise (ours)."""

from typing import ClassVar

from splitveil.defenses.chain import Chain
from splitveil.registry import Spec, Value


class Veil(Chain):
    """What each part leaves open another one closes: ``distillation + bottleneck + adversarial + noise``.

    The passage sends few channels at half the resolution, those that the task listens to, so that a trained net starts
    nearly as good as it was; the undefended net's answers keep it so; the rival's failure makes what crosses hard to
    invert; noise on few numbers of equal variance costs little accuracy. (Ours. The parts are in their own files; an
    option of 0 leaves its part out, which is the ablation.)

    Args:
        channels: sent; 0 is a quarter of the cut's.
        pool: 2 sends half the resolution, 1 all of it.
        distillation: weight of the undefended net's answers, see ``distillation``.
        adversarial: weight of the rival's failure, see ``adversarial``.
        sigma: noise-to-signal ratio, see ``noise``.

    Raises:
        InputError: an option out of range; all of the last three 0; when installed, a cut that is no feature map.
    """

    name: ClassVar[str] = "veil"

    def __init__(
        self,
        *,
        channels: int = 16,
        pool: int = 2,
        distillation: float = 1.0,
        adversarial: float = 1.0,
        sigma: float = 0.3,
    ) -> None:
        passage = Spec("bottleneck", {"channels": channels, "pool": pool})
        weights: tuple[tuple[str, dict[str, Value]], ...] = (
            ("adversarial", {"weight": adversarial}), ("noise", {"sigma": sigma}),
        )  # fmt: skip
        after = [Spec(name, options) for name, options in weights if any(options.values())]
        first = [Spec("distillation", {"weight": distillation})] if distillation else []
        super().__init__(of=" + ".join(map(str, [*first, passage, *after])))
        self.own: dict[str, Value] = {
            "channels": channels, "pool": pool, "distillation": distillation, "adversarial": adversarial,
            "sigma": sigma,
        }  # fmt: skip

    def options(self) -> dict[str, Value]:
        return self.own
