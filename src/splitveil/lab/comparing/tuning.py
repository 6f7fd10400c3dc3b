"""The strongest setting whose accuracy stays within a budget, found by interpolation inside an Optuna study."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

STRENGTH, ACCURACY = "strength", "accuracy"
SPACE: dict[str, BaseDistribution] = {STRENGTH: FloatDistribution(0.0, 1.0)}
CLOSE = 0.0025
"""A setting that passes by no more than this share of the images is as strong as tuning can tell."""
LEAST = 1e-3
"""Loss of accuracy below which a figure says nothing: the noise of training."""
OPEN, MEASURED = 0.25, 0.1
"""Nearest to an end of the interval, as a share of it, that is tried; for an end that is assumed, or was measured."""


class Interpolation(BaseSampler):
    """Between the strongest setting that passed and the weakest above it that failed, where the target is expected.

    What a knob costs grows about exponentially along it: little over most of its range, everything at its end. So the
    logarithm of the accuracy lost is taken to be linear between two settings, or beyond them where all passed, or none
    did. With one setting alone, an end that was not tried is assumed to lose nothing, or everything. Where two in a row
    come out on the same side of the target the knob is not like that, and the next one is half-way. The last trial goes
    to an end where all others passed, or none did.

    Args:
        target: accuracy that passes.
        reference: accuracy without a defence.
        trials: in all; the last one is this one's.
        known: how many of them were made for another target.
    """

    def __init__(self, target: float, reference: float, trials: int, known: int = 0) -> None:
        self.target, self.reference, self.trials, self.known = target, reference, trials, known

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The strength."""
        return SPACE

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next strength."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        tried = sorted((float(t.params[STRENGTH]), float(t.user_attrs[ACCURACY])) for t in done)
        low = max(((s, a) for s, a in tried if a >= self.target), default=None)
        high = min(((s, a) for s, a in tried if a < self.target and s > (low or (-1.0,))[0]), default=None)
        if not tried:
            return {STRENGTH: 0.5}
        if len(done) + 1 >= self.trials and (low is None or high is None):
            return {STRENGTH: 0.0 if low is None else 1.0}
        last = [t.user_attrs[ACCURACY] >= self.target for t in done[self.known :]][-2:]
        if low and high and len(last) == 2 and last[0] == last[1]:
            return {STRENGTH: (low[0] + high[0]) / 2}
        one, other = low or (0.0, self.reference), high or (1.0, 0.0)
        ends = (tried[-2:] if high is None else tried[:2]) if len(tried) > 1 and not (low and high) else [one, other]
        least = OPEN if low is None else MEASURED
        most = 1 - (OPEN if high is None else MEASURED)
        expected = self._expected(*ends)
        share = 0.5 if expected is None else (expected - one[0]) / (other[0] - one[0])
        return {STRENGTH: one[0] + min(max(share, least), most) * (other[0] - one[0])}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Not asked for: the strength is all there is."""
        raise NotImplementedError(param_name)

    def _expected(self, one: tuple[float, float], other: tuple[float, float]) -> float | None:
        """Where the target is expected on the line through two settings and the logarithms of what they lose.

        None where the line does not rise.
        """
        first, second, aim = (
            math.log(max(self.reference - a, LEAST)) for a in (one[1], other[1], self.target + CLOSE / 2)
        )
        if second <= first:
            return None
        return one[0] + (aim - first) / (second - first) * (other[0] - one[0])


def strongest(
    accuracy: Callable[[float], tuple[str, float]],
    target: float,
    trials: int,
    *,
    reference: float,
    known: dict[float, float] | None = None,
) -> tuple[float, float]:
    """The strongest setting that passes, or the most accurate one where none does: its strength and accuracy.

    Args:
        accuracy: strength -> name of the setting, and its accuracy on validation data; the same name is the same
            setting, and ends the search, as does one that passes by no more than `CLOSE`, the strongest if it passes,
            and the weakest if it fails and no other passes.
        target: accuracy that passes.
        trials: most settings to try.
        reference: accuracy without a defence.
        known: accuracy by strength of settings tried for another target.
    """
    with silenced():
        known = known or {}
        study = optuna.create_study(
            direction="maximize", sampler=Interpolation(target, reference, trials + len(known), len(known))
        )
        for strength, found in known.items():
            study.add_trial(
                create_trial(
                    params={STRENGTH: strength}, distributions=SPACE, value=_worth(strength, found, target),
                    user_attrs={ACCURACY: found},
                )
            )  # fmt: skip
        seen: set[str] = set()
        while len(seen) < trials and not _close(study, target) and not _at_end(study, target):
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


@contextmanager
def silenced() -> Iterator[None]:
    """Optuna tells warnings alone while inside. Where several studies go on at once, enter it around all of them."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _at_end(study: optuna.Study, target: float) -> bool:
    """Whether the strongest setting passed, or even the weakest failed as all others did."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    passed = {t.params[STRENGTH]: t.user_attrs[ACCURACY] >= target for t in done}
    return passed.get(1.0, False) or (0.0 in passed and not any(passed.values()))


def _close(study: optuna.Study, target: float) -> bool:
    """Whether the strongest setting that passed does so by so little that nothing stronger is to be had."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    best = max(
        ((t.params[STRENGTH], t.user_attrs[ACCURACY]) for t in done if t.user_attrs[ACCURACY] >= target), default=None
    )
    return best is not None and best[1] - target <= CLOSE


def _worth(strength: float, accuracy: float, target: float) -> float:
    """What the study maximises: strength of what passes, above all that fails."""
    return strength if accuracy >= target else accuracy - target - 1e-9
