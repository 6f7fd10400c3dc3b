"""Options worth a proxy where there are too many to take all: Optuna proposes cut, family and strength."""

from collections.abc import Callable

import numpy as np
import optuna
from optuna.trial import TrialState

from splitveil.lab.planning.space import Option, Space
from splitveil.lab.seeds import derive

FAR = 1e3
"""Beyond any leakage, in whatever unit."""
Judged = tuple[float, float, float]
"""Expected accuracy, expected leakage, and by how much limits known beforehand are broken (0: none)."""


def taken(options: list[Option], seed: int) -> list[Option]:
    """All options in an order in which the first ones already stand for the others: undefended ones, then by chance."""
    order = np.random.default_rng(derive(seed, "options")).permutation(len(options))
    return sorted((options[i] for i in order), key=lambda o: o.family != "none")


def proposed(
    space: Space, judge: Callable[[Option], Judged | None], more: Callable[[], bool], most: int, seed: int
) -> int:
    """Let NSGA-II propose up to `most` options (Deb et al. 2002, as Optuna has it).

    It seeks the most accuracy and the least leakage under the limits that need no measurement.

    Args:
        space: what it may choose from.
        judge: told of every option; None where it cannot be built there. The codec is the space's first one.
        more: whether there is time for another.
        most: proposals, those that were made before included.
        seed: of the sampler.

    Returns:
        How many were made.
    """
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        sampler = optuna.samplers.NSGAIISampler(
            population_size=max(8, most // 6), seed=derive(seed, "proposals") % 2**32
        )
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        for count in range(most):
            if not more():
                return count
            trial = study.ask()
            cut = trial.suggest_categorical("cut", [c.name for c in space.cuts])
            family = trial.suggest_categorical("family", [f.label for f in space.families])
            strength = trial.suggest_float("strength", 0.0, 1.0)
            found = judge(space.at(cut, family, space.codecs[0], strength))
            if found is None:
                study.tell(trial, state=TrialState.FAIL)
                continue
            accuracy, leakage, over = found
            # What breaks a limit is worse in both than all that keeps them, the more so the further beyond.
            study.tell(trial, (-over, FAR + over) if over else (accuracy, leakage))
        return most
    finally:
        optuna.logging.set_verbosity(before)
