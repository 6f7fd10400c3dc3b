"""What `trial` runs in a process of its own. Stands alone: it imports nothing of SplitVeil, to begin soon.

Standard input: one line of JSON, then the graph and the golden features. Exit code 0: answered as at export; 1: not,
and one phrase on standard output says why. Whatever else ends it tells as much.
"""

import json
import signal
import sys
from contextlib import suppress
from typing import Any


def main() -> int:
    """Try out one graph."""
    head: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    _limit(head["seconds"], head["bytes"])
    graph, golden = sys.stdin.buffer.read(head["graph"]), sys.stdin.buffer.read(head["golden"])
    import numpy as np
    import onnxruntime
    from safetensors.numpy import load

    expected = load(golden)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        session = onnxruntime.InferenceSession(
            graph, options, ["CPUExecutionProvider"], enable_fallback=0, read_config_from_model=0
        )
    except Exception as error:  # onnxruntime's own exceptions share no base
        reason = str(error).partition("\n")[0]
        return _refused(f"cannot be loaded by onnxruntime {onnxruntime.__version__} ({reason})")
    try:
        got = np.asarray(session.run(None, {head["features"]: expected["z"]})[0])
    except Exception as error:  # the same
        reason = str(error).partition("\n")[0]
        return _refused(f"fails on its golden features ({reason})")
    logits, worst = expected["logits"], np.inf
    if got.shape == logits.shape and got.dtype == logits.dtype:
        with np.errstate(all="ignore"):
            worst = np.max(np.abs(got - logits) / np.maximum(np.abs(logits), 1))
    if not worst <= head["tolerance"]:
        return _refused(f"answers its golden features with other logits than at export (difference {worst:.1e})")
    return 0


def _limit(seconds: float, most: int) -> None:
    """End by itself, whoever is left to end it."""
    with suppress(ImportError, AttributeError, ValueError, OSError):
        signal.setitimer(signal.ITIMER_REAL, seconds)
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _refused(why: str) -> int:
    sys.stdout.write(why[:300])
    return 1


if __name__ == "__main__":
    sys.exit(main())
