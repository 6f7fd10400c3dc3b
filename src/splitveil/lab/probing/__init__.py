"""Somebody's model, tried out before anything rests on it: what it takes, what it answers, whether answers hold."""

from splitveil.lab.probing.answers import answering, chosen, described, entries
from splitveil.lab.probing.behaviour import Findings, draws, in_other_company, probe, same_middle
from splitveil.lab.probing.copies import copied, held, materialized, plain, sheltered
from splitveil.lab.probing.inputs import misfit

__all__ = [
    "Findings",
    "answering",
    "chosen",
    "copied",
    "described",
    "draws",
    "entries",
    "held",
    "in_other_company",
    "materialized",
    "misfit",
    "plain",
    "probe",
    "same_middle",
    "sheltered",
]
