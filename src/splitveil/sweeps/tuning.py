"""The strongest setting whose accuracy stays within a budget, found by bisection inside an Optuna study."""

from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

STRENGTH, ACCURACY = "strength", "accuracy"
SPACE: dict[str, BaseDistribution] = {STRENGTH: FloatDistribution(0.0, 1.0)}


class Bisection(BaseSampler):
    """Half-way between the strongest setting that passed and the weakest above it that failed.

    A knob is monotone in accuracy but for the noise of training. The ends count as tried until the last trial, which
    goes to an end where all others passed, or none did.

    Args:
        target: accuracy that passes.
        trials: in all; the last one is this one's.
    """

    def __init__(self, target: float, trials: int) -> None:
        self.target, self.trials = target, trials

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The strength."""
        return SPACE

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next strength."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        tried = [(float(t.params[STRENGTH]), bool(t.user_attrs[ACCURACY] >= self.target)) for t in done]
        low = max((s for s, passed in tried if passed), default=None)
        high = min((s for s, passed in tried if not passed and s > (low or 0.0)), default=None)
        if len(done) + 1 >= self.trials and tried and (low is None or high is None):
            return {STRENGTH: 0.0 if low is None else 1.0}
        return {STRENGTH: ((low or 0.0) + (1.0 if high is None else high)) / 2}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Not asked for: the strength is all there is."""
        raise NotImplementedError(param_name)


def strongest(
    accuracy: Callable[[float], tuple[str, float]],
    target: float,
    trials: int,
    known: dict[float, float] | None = None,
) -> tuple[float, float]:
    """The strongest setting that passes, or the most accurate one where none does: its strength and accuracy.

    Args:
        accuracy: strength -> name of the setting, and its accuracy on validation data; the same name is the same
            setting, and ends the search.
        target: accuracy that passes.
        trials: most settings to try.
        known: accuracy by strength of settings tried for another target.
    """
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        known = known or {}
        study = optuna.create_study(direction="maximize", sampler=Bisection(target, trials + len(known)))
        for strength, found in known.items():
            study.add_trial(
                create_trial(
                    params={STRENGTH: strength}, distributions=SPACE, value=_worth(strength, found, target),
                    user_attrs={ACCURACY: found},
                )
            )  # fmt: skip
        seen: set[str] = set()
        for _ in range(trials):
            trial = study.ask()
            strength = trial.suggest_float(STRENGTH, 0.0, 1.0)
            name, found = accuracy(strength)
            trial.set_user_attr(ACCURACY, found)
            study.tell(trial, _worth(strength, found, target))
            if name in seen:
                break
            seen.add(name)
        best = study.best_trial
        return best.params[STRENGTH], best.user_attrs[ACCURACY]
    finally:
        optuna.logging.set_verbosity(before)


def _worth(strength: float, accuracy: float, target: float) -> float:
    """What the study maximises: strength of what passes, above all that fails."""
    return strength if accuracy >= target else accuracy - target - 1e-9
