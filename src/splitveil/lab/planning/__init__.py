"""Where to cut, how wide and with which defence, under budgets."""

from splitveil.lab.planning.run import plan

__all__ = ["plan"]
