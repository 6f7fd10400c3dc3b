"""Faults caused on purpose in a running server, a file a section of ``python -m benchmarks.serving_faults``."""
