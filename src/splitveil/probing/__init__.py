"""Somebody's model, tried out before anything rests on it: what it takes, what it answers, whether answers hold."""

from splitveil.probing.answers import answering, chosen, described
from splitveil.probing.behaviour import Findings, draws, in_other_company, probe, same_middle
from splitveil.probing.copies import copied, held, materialized, plain, sheltered
from splitveil.probing.inputs import misfit

__all__ = [
    "Findings",
    "answering",
    "chosen",
    "copied",
    "described",
    "draws",
    "held",
    "in_other_company",
    "materialized",
    "misfit",
    "plain",
    "probe",
    "same_middle",
    "sheltered",
]
