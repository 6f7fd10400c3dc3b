"""Where to cut, how wide and with which defence, under budgets."""
