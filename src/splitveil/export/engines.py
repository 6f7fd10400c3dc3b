"""The edge half for other engines on the device: OpenVINO's IR and ExecuTorch's program for XNNPACK."""

import hashlib
import importlib.metadata
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from splitveil.bundle import EDGE, Bundle, codec, replaced
from splitveil.defenses.base import Protected
from splitveil.errors import BundleError, InputError, MissingExtraError, SplitVeilError
from splitveil.export.checks import HALF_STEP, TIES, TOLERANCE
from splitveil.export.graphs import EdgeGraph
from splitveil.export.halves import quiet
from splitveil.records import DeviceGraph

Array = NDArray[Any]
Run = Callable[[list[Array]], Array]
"""Inputs of the edge graph, in their order -> what it sends."""

RECORD = "edge.json"
TESTED = 8
"""Random images, never real ones, that an engine is held against ONNX Runtime on."""


class Converted(NamedTuple):
    """Files by name, what runs them here, and the rows of one call; None: any number."""

    files: dict[str, bytes]
    run: Run
    batch: int | None


def openvino_graph(bundle: Bundle, protected: Protected | None) -> Converted:
    """OpenVINO's IR, 32-bit weights. On processors with bf16 the device must ask for ``f32``, as this does."""
    import openvino

    model = openvino.Core().read_model(bundle.read(EDGE))
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(model, Path(folder) / "edge.xml", compress_to_fp16=False)
        files = {name: (Path(folder) / name).read_bytes() for name in ("edge.xml", "edge.bin")}
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return Converted(files, lambda inputs: np.asarray(compiled(inputs)[0]), None)


def executorch_graph(bundle: Bundle, protected: Protected | None) -> Converted:
    """ExecuTorch's program for one picture a call, lowered to XNNPACK."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    if protected is None:
        raise InputError("expected the net itself for ExecuTorch, got its graph alone; give restore(bundle).")
    edge = EdgeGraph(protected.split.edge, protected.defense, protected.codec).requires_grad_(False).eval()
    inputs = tuple(torch.from_numpy(a) for a in drawn(bundle, 1))
    program = to_edge_transform_and_lower(torch.export.export(edge, inputs), partitioner=[XnnpackPartitioner()])
    content = bytes(program.to_executorch().buffer)
    loaded = Runtime.get().load_program(content).load_method("forward")

    def run(given: list[Array]) -> Array:
        return np.array(loaded.execute([torch.from_numpy(a) for a in given])[0].numpy())

    return Converted({"edge.pte": content}, run, 1)


ENGINES: dict[str, tuple[Callable[[Bundle, Protected | None], Converted], tuple[str, ...]]] = {
    "openvino": (openvino_graph, ("openvino",)),
    "executorch": (executorch_graph, ("executorch", "torch")),
}
"""By name: what converts, and the packages that did."""


def write_device_graph(bundle: Bundle, folder: Path, engine: str, protected: Protected | None = None) -> DeviceGraph:
    """Write the edge half for an engine, held against ONNX Runtime, and ``edge.json`` that tells how to call it.

    The contract stays that of the bundle: the server cannot tell who computed the features, and the codes agree up to
    rounding. The audit ran the net itself, so its card speaks of this graph as of ``edge.onnx``.

    Args:
        bundle: whole, or the edge half.
        folder: where; only an empty folder or one that this wrote before is replaced.
        engine: of `ENGINES`.
        protected: the bundle's split as `splitveil.restoring.restore` gives it; ExecuTorch alone needs it.

    Raises:
        InputError: no such engine, no split where it is needed, or a folder that holds something else.
        MissingExtraError: the engine is not installed.
        BundleError: the cloud half alone, an altered file, a graph that the engine cannot run, or other numbers.
    """
    bundle.require_edge()
    if engine not in ENGINES:
        raise InputError(f"expected an engine of {', '.join(ENGINES)}, got {engine!r}; use --to {next(iter(ENGINES))}.")
    if folder.exists() and not (folder / RECORD).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} holds something that this did not write; choose another folder.")
    convert, packages = ENGINES[engine]
    try:
        with quiet():
            made = convert(bundle, protected)
            worst = difference(bundle, made)
    except ModuleNotFoundError as missing:
        raise MissingExtraError(f"{engine} needs {missing.name}; pip install 'splitveil[lab,{engine}]'.") from None
    except SplitVeilError:
        raise
    except Exception as error:  # neither engine's converters share a base of their errors
        reason = str(error).strip().partition("\n")[0]
        raise BundleError(f"{engine} cannot run this edge half ({reason}); ship edge.onnx.") from error
    manifest = bundle.manifest
    record = DeviceGraph(
        engine=engine,
        contract=manifest.contract,
        batch=made.batch,
        inputs=[manifest.input, *([manifest.noise] if manifest.noise else [])],
        output=manifest.features,
        files={name: hashlib.sha256(content).hexdigest() for name, content in made.files.items()},
        largest_difference=worst,
        tested_on=TESTED,
        versions={name: importlib.metadata.version(name) for name in packages},
    )
    with replaced(folder) as fresh:
        for name, content in made.files.items():
            (fresh / name).write_bytes(content)
        (fresh / RECORD).write_text(record.to_json() + "\n")
    return record


def difference(bundle: Bundle, made: Converted) -> float:
    """Largest difference from ONNX Runtime: of unpacked codes in steps, of floats relative to the larger of 1 and them.

    Raises:
        BundleError: other shapes or types, more than a thousandth of the codes apart, or floats beyond rounding.
    """
    inputs = drawn(bundle, TESTED)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(bundle.read(EDGE), options, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {i.name: a for i, a in zip(session.get_inputs(), inputs, strict=True)})[0]
    step = made.batch or TESTED
    parts = range(0, TESTED, step)
    got = np.concatenate([made.run([np.ascontiguousarray(a[i : i + step]) for a in inputs]) for i in parts])
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        raise BundleError(
            f"it gives {got.dtype} {got.shape}, ONNX Runtime {wanted.dtype} {wanted.shape}; ship edge.onnx."
        )
    if wanted.dtype == np.uint8:
        shape = tuple(bundle.manifest.cut.shape)
        own = codec(bundle.manifest)
        apart = own.unpack(torch.from_numpy(got), shape) - own.unpack(torch.from_numpy(wanted), shape)
        steps = apart.abs().float()
        if steps.max() > 1 or float((steps > 0).float().mean()) > TIES:
            raise BundleError(f"it differs from ONNX Runtime in {int((steps > 0).sum())} codes; ship edge.onnx.")
        return float(steps.max())
    ours, theirs = got.astype(np.float64), wanted.astype(np.float64)
    worst = float((np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs))).max())
    if not worst <= (TOLERANCE if wanted.dtype == np.float32 else HALF_STEP):
        raise BundleError(f"it differs from ONNX Runtime by {worst:.1e}; ship edge.onnx.")
    return worst


def drawn(bundle: Bundle, batch: int) -> list[Array]:
    """Random inputs of the edge graph."""
    draws = np.random.default_rng(batch)
    manifest = bundle.manifest
    inputs: list[Array] = [draws.random((batch, *manifest.image_shape), dtype=np.float32)]
    if manifest.noise:
        inputs.append(draws.standard_normal((batch, *manifest.noise.shape[1:]), dtype=np.float32))
    return inputs
