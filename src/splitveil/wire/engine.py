"""`LoadedHalf`: one exported half of a bundle, run by ONNX Runtime."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from safetensors.numpy import load as from_safetensors

from splitveil.core.errors import BundleError
from splitveil.wire.bundle import CLOUD, EDGE, GOLDEN, Bundle

GOLDEN_TOLERANCE = 1e-3
"""Largest difference from the exported logits, relative to the larger of 1 and the value."""


class LoadedHalf:
    """A half of a bundle, ready to run; thread-safe.

    Args:
        bundle: the bundle.
        name: ``edge.onnx`` or ``cloud.onnx``.
        threads: for one call.

    Raises:
        BundleError: the file is altered or onnxruntime cannot run it.
    """

    def __init__(self, bundle: Bundle, name: str, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        try:
            # From checked bytes, not from the path: what runs is what was hashed, and no file beside it.
            self._session = onnxruntime.InferenceSession(bundle.read(name), options, ["CPUExecutionProvider"])
        except BundleError:
            raise
        except Exception as error:  # onnxruntime's own exceptions share no base
            reason = str(error).partition("\n")[0]
            raise BundleError(
                f"onnxruntime {onnxruntime.__version__} cannot load {bundle.folder / name} ({reason}); export it anew."
            ) from None
        # onnxruntime keeps the model's bytes beside the session, to load it anew on another provider: 42 MB of a
        # ResNet-18, for a change that there is none to make.
        self._session.disable_fallback()
        self._session._model_bytes = None

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The half's only output."""
        out: NDArray[Any] = self._session.run(None, dict(inputs))[0]
        return out


def load_edge(bundle: Bundle) -> LoadedHalf:
    """The device's half."""
    bundle.require_edge()
    return LoadedHalf(bundle, EDGE)


def load_cloud(bundle: Bundle, threads: int = 1) -> LoadedHalf:
    """The server's half. threads: for one batch."""
    bundle.require_cloud()
    return LoadedHalf(bundle, CLOUD, threads)


def self_test(bundle: Bundle, cloud: LoadedHalf) -> None:
    """Run the bundle's golden features (made from random images) and compare with the logits seen at export.

    Raises:
        BundleError: other logits than at export.
    """
    golden = from_safetensors(bundle.read(GOLDEN))
    expected = golden["logits"]
    got = cloud.run({bundle.manifest.features.name: golden["z"]})
    same_shape = got.shape == expected.shape
    worst = np.max(np.abs(got - expected) / np.maximum(np.abs(expected), 1)) if same_shape else np.inf
    if not worst <= GOLDEN_TOLERANCE:
        raise BundleError(
            f"{bundle.folder} answers its golden features with other logits than at export (difference {worst:.1e}); "
            "export it anew or use the onnxruntime that it names."
        )
