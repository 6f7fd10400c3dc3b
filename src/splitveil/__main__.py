"""``python -m splitveil`` is the command line."""

from splitveil.cli import main

main()
