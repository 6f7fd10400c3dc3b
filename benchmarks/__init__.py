"""Measurements of speed. Run with ``make bench``; each prints the strength reached beside the time."""
