"""``python -m splitveil`` is the command line."""

import signal
import sys

# The rest takes a moment to be imported, and a SIGHUP in it, which tells a server of a new bundle, would end it.
if sys.argv[1:2] == ["serve"] and hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

from splitveil.cli import main

if __name__ == "__main__":
    main()
