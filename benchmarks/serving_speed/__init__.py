"""The parts of ``python -m benchmarks.serving``: what is served, by whom, under which load, and what came of it."""
