"""A new bundle's cloud half, tried out in a process of its own before it comes into that of the server.

A graph is a program: it may run for ever, take all memory, or hit a bug of the engine that ends its process. Beside the
bundle that is served none of this may happen, so whatever a reload brings answers its golden features elsewhere first.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

from splitveil.core.errors import BundleError
from splitveil.core.printing import phrase
from splitveil.wire.bundle import CLOUD, GOLDEN, Bundle
from splitveil.wire.engine import GOLDEN_TOLERANCE, TEST_SECONDS, read_golden

CHILD = Path(__file__).with_name("trial_child.py")
BYTES, TIMES = 2 << 30, 6
"""Memory of the child: this, and so many times the graph."""
MARGIN = 5.0
"""Seconds by which the child may be late to end itself."""
LATE = (-signal.SIGALRM, -signal.SIGXCPU, -signal.SIGKILL)


class Trial:
    """One at a time; `stop` ends the one that runs."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self, bundle: Bundle, seconds: float = TEST_SECONDS) -> None:
        """Load the cloud half and answer the golden features, in `seconds`.

        Raises:
            BundleError: it cannot, or answers otherwise than at export.
        """
        read_golden(bundle)
        graph, golden = bundle.graph(CLOUD), bundle.read(GOLDEN)
        head = {
            "seconds": seconds, "bytes": BYTES + TIMES * len(graph), "graph": len(graph), "golden": len(golden),
            "features": bundle.manifest.features.name, "tolerance": GOLDEN_TOLERANCE,
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-P", str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._process = process
        try:
            if self._stopped:
                process.kill()
            said, _ = process.communicate(json.dumps(head).encode() + b"\n" + graph + golden, seconds + MARGIN)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
        finally:
            self._process = None
        if process.returncode == 0:
            return
        raise BundleError(f"{bundle.folder} {_words(process.returncode, said, seconds)}; export it anew.")

    def stop(self) -> None:
        """End what runs, and whatever begins after."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()


def _words(code: int, said: bytes, seconds: float) -> str:
    if code == 1:
        return phrase(said.decode("utf-8", "replace").strip())
    if code in LATE:
        return f"does not answer its golden features within {seconds:g} s, or not within the memory of a trial"
    return f"ends the process that loads it ({f'signal {-code}' if code < 0 else f'exit code {code}'})"
