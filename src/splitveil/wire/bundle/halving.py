"""One half of a bundle alone: what the device gets, or what the server gets."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from splitveil.core.errors import InputError
from splitveil.wire.bundle.folder import CARD, CLOUD, GOLDEN, HALVES, OTHER, Bundle
from splitveil.wire.bundle.writing import parts, write_bundle


def write_half(bundle: Bundle, half: Literal["edge", "cloud"], folder: Path) -> Bundle:
    """Write one half as a bundle of its own: its graph and weights, and the card; the contract stays.

    The other half's graph leaves its SHA-256 only. The cloud half gets golden features of its own, drawn at random:
    those of the whole bundle come from images that anyone can draw again, and such a pair of image and features would
    tell a secret of the edge half (which channels PrivyNet sends) to whoever has the net that it was made from.

    Raises:
        InputError: `folder` is the bundle itself or holds something else.
        BundleError: that half is not in this bundle.
    """
    (bundle.require_edge if half == "edge" else bundle.require_cloud)()
    if folder.resolve() == bundle.folder.resolve():
        raise InputError(f"{folder} is the bundle itself; choose another folder for its {half} half.")
    manifest = bundle.manifest
    files = parts(bundle, (name for name in (*HALVES[half], CARD) if name in manifest.files))
    if half == "cloud":
        files |= parts(bundle, [GOLDEN]) if bundle.half else {GOLDEN: _drawn_golden(bundle)}
    graph = HALVES[OTHER[half]][0]
    elsewhere = manifest.elsewhere or {graph: manifest.files[graph]}
    return write_bundle(folder, manifest.model_copy(update={"half": half, "elsewhere": elsewhere}), files)


def _drawn_golden(bundle: Bundle) -> bytes:
    """Features of no image, as large as the bundle's golden ones, and what the cloud half makes of them."""
    # Here, so that reading a bundle starts no engine.
    import onnxruntime
    from safetensors.numpy import load as from_safetensors
    from safetensors.numpy import save as to_safetensors

    like: NDArray[Any] = from_safetensors(bundle.read(GOLDEN))["z"]
    source = np.random.default_rng(0)
    z: NDArray[Any]
    if like.dtype.kind in "ui":
        z = source.integers(0, int(like.max()), like.shape, like.dtype, endpoint=True)
    else:
        wide = like.astype(np.float64)
        z = source.normal(wide.mean(), max(float(wide.std()), 1e-6), like.shape).astype(like.dtype)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    cloud = onnxruntime.InferenceSession(bundle.graph(CLOUD), options, ["CPUExecutionProvider"], enable_fallback=0)
    logits: NDArray[Any] = cloud.run(None, {bundle.manifest.features.name: z})[0]
    return to_safetensors({"z": z, "logits": logits})
