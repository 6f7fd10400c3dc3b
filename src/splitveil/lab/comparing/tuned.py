"""The settings of one candidate that were tried, and the strongest of them within a budget."""

from collections.abc import Sequence

from splitveil.core.errors import AnswerError, TrainingError
from splitveil.core.records import Contender, Trial
from splitveil.lab.comparing.candidate import Candidate
from splitveil.lab.comparing.setting import Setting
from splitveil.lab.comparing.trials import Trials
from splitveil.lab.comparing.tuning import strongest


class Tuned:
    """The settings of one candidate that were tried, by strength.

    Args:
        candidate: what is tuned.
        shop: trains.
        seed: that tunes.
        channels: of the cut.
    """

    def __init__(self, candidate: Candidate, shop: Trials, seed: int, channels: int) -> None:
        self.candidate, self.shop, self.seed, self.channels = candidate, shop, seed, channels
        self.tried: dict[float, Trial] = {}

    def within(self, drop: float, reference: float, trials: int) -> Contender:
        """The strongest setting within a budget, without what it leaks. reference: the undefended split's accuracy."""
        knob, target = self.candidate.knob, reference - drop / 100
        if knob is None:
            self._accuracy(0.0)
            best = 0.0
        else:
            known = {s: t.validation for s, t in self.tried.items()}
            best, _ = strongest(self._accuracy, target, trials, reference=reference, known=known)
        trial = self.tried[best]
        value = knob.at(best, self.channels) if knob else None
        return Contender(
            label=self.candidate.label, drop=drop, defense=trial.defense, codec=trial.codec,
            knob=knob.option if knob else "", value=float(value) if value is not None else None,
            defends=self.candidate.defends, validation=trial.validation,
            ended=knob is not None and best == 1.0 and trial.validation >= target,
            missing=max(0.0, round(100 * (target - trial.validation), 6)),
            tried=[t.model_copy(update={"strength": s}) for s, t in sorted(self.tried.items())],
        )  # fmt: skip

    def drop_weights(self, chosen: Sequence[Contender]) -> None:
        """Forget the weights of all settings but the chosen ones."""
        kept = {(c.defense, c.codec) for c in chosen if c.reached}
        for trial in self.tried.values():
            if (trial.defense, trial.codec) not in kept:
                self.shop.drop(Setting(trial.defense, trial.codec), self.seed)

    def _accuracy(self, strength: float) -> tuple[str, float]:
        setting = self.candidate.at(strength, self.channels)
        try:
            self.tried[strength] = self.shop.trial(setting, self.seed)
        except (AnswerError, TrainingError):  # NaN is no class, and no reason to lose the other settings
            self.tried[strength] = self.shop.missed(setting, self.seed)
        return f"{setting.defense} {setting.codec}", self.tried[strength].validation
