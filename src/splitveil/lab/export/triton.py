"""A model repository for NVIDIA's Triton Inference Server from a bundle's cloud half."""

import re
from pathlib import Path
from typing import Literal

from splitveil.core.errors import BundleError, InputError
from splitveil.core.printing import phrase
from splitveil.core.records import Tensor
from splitveil.wire.bundle import CLOUD, Bundle, replaced

DATATYPES = {"FP32": "TYPE_FP32", "FP16": "TYPE_FP16", "UINT8": "TYPE_UINT8"}
CONFIG = "config.pbtxt"
NAMED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def write_repository(
    bundle: Bundle, folder: Path, *, backend: Literal["onnxruntime", "python"] = "onnxruntime", max_batch: int = 64
) -> Path:
    """Write ``FOLDER/NAME/config.pbtxt`` and ``FOLDER/NAME/1/model.onnx``; other models in the folder stay.

    Triton then batches greedily (no delay: with one, and a queue policy, answers were seen to stall for 0.5 s) and
    tells the contract id among its parameters, so that `splitveil.Edge` can ask it as it asks our own server. Triton
    does not check what it is sent against the bundle: neither NaN nor undefended features are refused.

    Args:
        bundle: whole, or the cloud half.
        folder: of the repository.
        backend: ``python`` for a Triton that has no onnxruntime backend; needs onnxruntime and NumPy in its Python.
        max_batch: rows of one run.

    Returns:
        The model's folder.

    Raises:
        BundleError: the edge half alone, or an altered file.
        InputError: a name or a number that Triton cannot use, or a folder that holds something else.
    """
    bundle.require_cloud()
    name = bundle.manifest.name
    for named in (name, bundle.manifest.features.name, bundle.manifest.output.name):
        if not NAMED.fullmatch(named):
            raise InputError(
                f"expected letters, digits, '.', '_' and '-' in a model's name and its tensors', got "
                f"{phrase(named, 80)!r}; fit it anew."
            )
    if backend not in ("onnxruntime", "python"):
        raise InputError(f"expected the backend onnxruntime or python, got {backend!r}; use --backend python.")
    if max_batch < 1:
        raise InputError(f"expected a batch of 1 or more, got {max_batch}; use --max-batch 64.")
    target = folder / name
    if target.exists() and not (target / CONFIG).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} holds something that is not a Triton model; choose another folder.")
    config = configuration(bundle, backend=backend, max_batch=max_batch)
    graph = bundle.graph(CLOUD)
    with replaced(target) as fresh:
        (fresh / "1").mkdir()
        (fresh / CONFIG).write_text(config)
        (fresh / "1" / "model.onnx").write_bytes(graph)
        if backend == "python":
            (fresh / "1" / "model.py").write_bytes(Path(__file__).with_name("triton_model.py").read_bytes())
    return target


def configuration(bundle: Bundle, *, backend: str, max_batch: int) -> str:
    """``config.pbtxt``: a ``ModelConfig`` of Triton's model_config.proto in protobuf's text format."""
    manifest = bundle.manifest
    runs = 'backend: "python"' if backend == "python" else 'platform: "onnxruntime_onnx"\nbackend: "onnxruntime"'
    return (
        f'name: "{manifest.name}"\n{runs}\nmax_batch_size: {max_batch}\n'
        f"input [ {_tensor(manifest.features)} ]\noutput [ {_tensor(manifest.output)} ]\n"
        "dynamic_batching { }\n"
        f'parameters {{ key: "contract" value {{ string_value: "{manifest.contract}" }} }}\n'
    )


def _tensor(tensor: Tensor) -> str:
    if tensor.datatype not in DATATYPES:
        raise BundleError(f"Triton takes {', '.join(DATATYPES)}, got {phrase(tensor.datatype, 40)}; use another codec.")
    dims = ", ".join(map(str, tensor.shape[1:]))
    return f'{{ name: "{tensor.name}" data_type: {DATATYPES[tensor.datatype]} dims: [ {dims} ] }}'
