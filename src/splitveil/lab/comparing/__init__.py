"""Many trainings and audits of one model at one cut, held against each other."""

from splitveil.lab.comparing.run import compare, epochs_for
from splitveil.lab.comparing.trials import without_tuning

__all__ = ["compare", "epochs_for", "without_tuning"]
