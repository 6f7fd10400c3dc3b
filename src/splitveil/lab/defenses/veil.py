"""Veil: a passage for what the task needs, trained towards the teacher, under noise (ours)."""

from typing import ClassVar

from splitveil.core.registry import Spec, Value
from splitveil.lab.defenses.chain import Chain


class Veil(Chain):
    """What each part leaves open another one closes: ``distillation + bottleneck + noise``.

    The passage sends few channels at half the resolution, those that the task listens to, so that a trained net starts
    nearly as good as it was and fine detail does not cross at all; the undefended net's answers keep it so; noise on
    few numbers of equal variance costs little accuracy. (Ours. The parts are in their own files; an option of 0 leaves
    its part out, which is the ablation.)

    A rival can be trained against, too. It is left out by default: most of what it hides from decoders, a likelihood
    search with the edge's weights finds again (0.2 to 0.4 dB are left at equal accuracy; ResNet-20 at ``layer2``, one
    seed), for a step that costs more.

    Args:
        channels: sent, or all there are; 0: no passage.
        pool: 2 sends half the resolution, 1 all of it.
        distillation: weight of the undefended net's answers, see ``distillation``.
        adversarial: weight of the rival's failure, see ``adversarial``.
        sigma: noise-to-signal ratio, see ``noise``.

    Raises:
        InputError: an option out of range; fewer than two parts; when installed, a cut that is no feature map.
    """

    name: ClassVar[str] = "veil"

    def __init__(
        self,
        *,
        channels: int = 16,
        pool: int = 2,
        distillation: float = 1.0,
        adversarial: float = 0.0,
        sigma: float = 0.3,
    ) -> None:
        parts: tuple[tuple[str, dict[str, Value], float], ...] = (
            ("distillation", {"weight": distillation}, distillation),
            ("bottleneck", {"channels": channels, "pool": pool}, channels),
            ("adversarial", {"weight": adversarial}, adversarial),
            ("noise", {"sigma": sigma}, sigma),
        )
        super().__init__(of=" + ".join(str(Spec(name, options)) for name, options, there in parts if there))
        self.channels, self.pool, self.sigma = channels, pool, sigma
        self.distillation, self.adversarial = distillation, adversarial
