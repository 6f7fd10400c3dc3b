"""Faults on purpose: hostile clients, killed servers, damaged bundles, long load. See ``python -m`` of this package."""
