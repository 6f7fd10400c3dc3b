"""Measurements and the pages of docs/results that they make, one command a page."""
