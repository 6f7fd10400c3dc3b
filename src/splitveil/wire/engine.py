"""`LoadedHalf`: one exported half of a bundle, run by ONNX Runtime."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from safetensors.numpy import load as from_safetensors

from splitveil.core.errors import BundleError
from splitveil.core.printing import phrase
from splitveil.core.records import Tensor
from splitveil.wire.bundle import CLOUD, EDGE, GOLDEN, Bundle
from splitveil.wire.datatypes import wire_dtype

GOLDEN_TOLERANCE = 1e-3
"""Largest difference from the exported logits, relative to the larger of 1 and the value."""
TEST_SECONDS = 60.0
"""For the golden features to be answered; two rows take milliseconds."""
LAST_SECONDS = 1.0
"""For a run to notice that it was told to stop, between two operators."""
TESTING = "self-test"
"""Name of the thread."""
TYPES = {"FP32": "tensor(float)", "FP16": "tensor(float16)", "UINT8": "tensor(uint8)"}
"""As ONNX Runtime calls what crosses."""


class LoadedHalf:
    """A half of a bundle, ready to run; thread-safe.

    Args:
        bundle: the bundle.
        name: ``edge.onnx`` or ``cloud.onnx``.
        threads: for one call.

    Raises:
        BundleError: the file is altered, reaches outside of itself, onnxruntime cannot run it, or it takes or gives
            other tensors than the manifest says.
    """

    def __init__(self, bundle: Bundle, name: str, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.load_model_format", "ONNX")
        # Without the fallback, which would print a stranger's words; there is no other provider to fall back to.
        # From checked bytes, not from the path: what runs is what was hashed, and no file beside it.
        content = bundle.graph(name)
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, ["CPUExecutionProvider"], enable_fallback=0, read_config_from_model=0
            )
        except Exception as error:  # onnxruntime's own exceptions share no base
            raise BundleError(
                f"onnxruntime {onnxruntime.__version__} cannot load {bundle.folder / name} ({_reason(error)}); export "
                "it anew."
            ) from None
        # onnxruntime keeps the model's bytes beside the session, to load it anew on another provider: 42 MB of a
        # ResNet-18, for a change that there is none to make.
        self._session.disable_fallback()
        self._session._model_bytes = None
        m = bundle.manifest
        given = [m.features] if name == CLOUD else [m.input, *([m.noise] if m.noise else [])]
        self._check(given, m.output if name == CLOUD else m.features, f"{bundle.folder / name}")

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The half's only output."""
        out: NDArray[Any] = self._session.run(None, dict(inputs))[0]
        return out

    def run_until_told(self, inputs: Mapping[str, NDArray[Any]], options: Any) -> NDArray[Any]:
        """The same under options of ONNX Runtime, which end it between two operators once they say so."""
        out: NDArray[Any] = self._session.run(None, dict(inputs), options)[0]
        return out

    def _check(self, given: list[Tensor], made: Tensor, name: str) -> None:
        """Names and types, as the manifest says; shapes are the requests' to keep, and the self-test's to see."""
        wire_dtype(given[0]), wire_dtype(made)
        wanted = {t.name: TYPES[t.datatype] for t in given if t.datatype in TYPES}
        found = {t.name: t.type for t in self._session.get_inputs()}
        out = [t.type for t in self._session.get_outputs()]
        if found != wanted or out != [TYPES[made.datatype]]:
            raise BundleError(f"{name} takes or gives other tensors than the manifest says; export it anew.")


def load_edge(bundle: Bundle) -> LoadedHalf:
    """The device's half."""
    bundle.require_edge()
    return LoadedHalf(bundle, EDGE)


def load_cloud(bundle: Bundle, threads: int = 1) -> LoadedHalf:
    """The server's half. threads: for one batch."""
    bundle.require_cloud()
    return LoadedHalf(bundle, CLOUD, threads)


class Golden(NamedTuple):
    """Features (n, *cut) as they cross, made from random images, and the logits (n, K) seen at export."""

    z: NDArray[Any]
    logits: NDArray[Any]


def read_golden(bundle: Bundle) -> Golden:
    """The golden features of a bundle.

    Raises:
        BundleError: altered, or no features and logits of this bundle.
    """
    content = bundle.read(GOLDEN)
    try:
        found = from_safetensors(content)
        golden = Golden(found["z"], found["logits"])
    except Exception:  # safetensors raises several kinds, of types that NumPy lacks a KeyError
        raise _no_golden(bundle, "no features with their logits") from None
    m = bundle.manifest
    rows = len(golden.z) if golden.z.ndim else 0
    if golden.z.dtype != wire_dtype(m.features) or not rows or golden.z.shape[1:] != m.features.shape[1:]:
        raise _no_golden(bundle, f"{golden.z.dtype} features {phrase(str(golden.z.shape))}")
    if golden.logits.dtype != np.float32 or golden.logits.shape != (rows, *m.output.shape[1:]):
        raise _no_golden(bundle, f"{golden.logits.dtype} logits {phrase(str(golden.logits.shape))}")
    return golden


def self_test(bundle: Bundle, cloud: LoadedHalf, seconds: float = TEST_SECONDS) -> None:
    """Run the bundle's golden features (made from random images) and compare with the logits seen at export.

    In a thread of its own, which is told to stop when the time is over, and left alone if it does not.

    Raises:
        BundleError: other logits than at export, or none in time.
    """
    golden = read_golden(bundle)
    options = onnxruntime.RunOptions()
    try:
        inputs = {bundle.manifest.features.name: golden.z}
        got = _in_time(lambda: cloud.run_until_told(inputs, options), seconds, options)
    except TimeoutError:
        raise BundleError(
            f"{bundle.folder} does not answer its golden features within {seconds:g} s; export it anew."
        ) from None
    except Exception as error:  # onnxruntime's own exceptions share no base
        raise BundleError(f"{bundle.folder} fails on its golden features ({_reason(error)}); export it anew.") from None
    worst = np.inf
    if got.shape == golden.logits.shape:
        with np.errstate(all="ignore"):
            worst = np.max(np.abs(got - golden.logits) / np.maximum(np.abs(golden.logits), 1))
    if not worst <= GOLDEN_TOLERANCE:
        raise BundleError(
            f"{bundle.folder} answers its golden features with other logits than at export (difference {worst:.1e}); "
            "export it anew or use the onnxruntime that it names."
        )


def _in_time(run: Callable[[], NDArray[Any]], seconds: float, options: Any) -> NDArray[Any]:
    made: list[NDArray[Any]] = []
    failed: list[Exception] = []

    def work() -> None:
        try:
            made.append(run())
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=work, name=TESTING, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        options.terminate = True
        thread.join(LAST_SECONDS)
        raise TimeoutError
    if failed:
        raise failed[0]
    return made[0]


def _no_golden(bundle: Bundle, what: str) -> BundleError:
    return BundleError(f"{bundle.folder / GOLDEN} holds {what}, expected those of this bundle; export it anew.")


def _reason(error: Exception) -> str:
    return phrase(str(error).partition("\n")[0]) or type(error).__name__
