"""Many trainings and audits of one model at one cut, held against each other."""

from splitveil.sweeps.run import compare

__all__ = ["compare"]
