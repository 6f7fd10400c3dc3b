"""The one option of each defence that trades accuracy for protection."""

import math
from dataclasses import dataclass

from splitveil.core.registry import Value


@dataclass(frozen=True, slots=True)
class Knob:
    """An option and the range in which it is tuned.

    Attributes:
        option: its name.
        weak: where it protects least and costs the least accuracy.
        strong: where it protects most.
        log: equal steps are equal ratios.
        whole: a whole number.
        channels: it counts channels, so it ends at those of the cut,
        share: or at this share of them.
    """

    option: str
    weak: float
    strong: float
    log: bool = True
    whole: bool = False
    channels: bool = False
    share: float = 1.0

    def at(self, strength: float, channels: int) -> Value:
        """The option's value. strength: 0 weakest to 1 strongest; channels: of the cut."""
        weak, strong = (self._within(end, channels) for end in (self.weak, self.strong))
        if self.log:
            value = math.exp((1 - strength) * math.log(weak) + strength * math.log(strong))
        else:
            value = (1 - strength) * weak + strength * strong
        return round(value) if self.whole else float(f"{value:.4g}")

    def _within(self, end: float, channels: int) -> float:
        return min(end, max(1, math.floor(self.share * channels))) if self.channels else end


KNOBS = {
    "noise": Knob("sigma", 0.01, 10),
    "laplace": Knob("sigma", 0.01, 10),
    "dropout": Knob("rate", 0.02, 0.98, log=False),
    "siftfunnel": Knob("channels", 64, 1, whole=True, channels=True),
    "label_smoothing": Knob("alpha", 0, 0.9, log=False),
    "nopeek": Knob("weight", 0.01, 100),
    "adversarial": Knob("weight", 0.01, 100),
    "vib": Knob("beta", 0.01, 1000),
    "cloak": Knob("weight", 0.01, 1000),
    "top_k": Knob("keep", 0.9, 0.005),
    "pripro": Knob("weight", 0.01, 100),
    "shredder": Knob("start", 0.05, 5),
    "patrol": Knob("adversarial", 0.01, 100),
    "privynet": Knob("keep", 64, 1, whole=True, channels=True, share=0.5),
    "cem": Knob("weight", 0.01, 100),
    "disco": Knob("ratio", 0.05, 0.95, log=False),
    "infoscissors": Knob("x", 0.01, 100),
    "ensembler": Knob("sigma", 0.01, 10),
    "noise_for_floor": Knob("mse", 1e-4, 0.1),
    "veil": Knob("sigma", 0.01, 10),
    "bottleneck": Knob("channels", 64, 1, whole=True, channels=True),
    "uniform": Knob("bits", 8, 2, log=False, whole=True),
}
"""By name of the defence, or of the codec where quantisation is the baseline. Others are taken as they are given."""

NOT_DEFENSES = ("none", "top_k", "distillation")
"""Compared, but never called the best defence; nor is a codec, or a chain of nothing else."""
