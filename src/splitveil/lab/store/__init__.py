"""Finished work, kept under a hash of everything that decides it, and found again."""

from splitveil.lab.store.code import code_of
from splitveil.lab.store.facts import Facts
from splitveil.lab.store.results import Results
from splitveil.lab.store.shelf import Claim, Kept, Store, machine

__all__ = ["Claim", "Facts", "Kept", "Results", "Store", "code_of", "machine"]
