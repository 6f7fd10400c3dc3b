"""The edge half for other engines on the device: OpenVINO's IR and ExecuTorch's program for XNNPACK."""

import hashlib
import importlib.metadata
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from splitveil.core.errors import BundleError, InputError, MissingExtraError, SplitVeilError
from splitveil.core.records import DeviceGraph
from splitveil.core.records import Tensor as TensorSpec
from splitveil.lab.defenses.base import Protected
from splitveil.lab.export.checks import check_codes, run_graph
from splitveil.lab.export.graphs import EdgeGraph
from splitveil.lab.silence import quiet
from splitveil.wire.bundle import EDGE, SECRET, Bundle, codec, replaced

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

    model = openvino.Core().read_model(bundle.graph(EDGE))
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
        protected: the bundle's split as `splitveil.lab.restoring.restore` gives it; ExecuTorch alone needs it.

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
        inputs=called_with(bundle),
        output=manifest.features,
        picture=manifest.picture,
        files={name: hashlib.sha256(content).hexdigest() for name, content in made.files.items()},
        largest_difference=worst,
        tested_on=TESTED,
        versions={name: importlib.metadata.version(name) for name in packages},
    )
    with replaced(folder, SECRET) as fresh:
        for name, content in made.files.items():
            (fresh / name).write_bytes(content)
        (fresh / RECORD).write_text(record.to_json() + "\n")
    return record


def difference(bundle: Bundle, made: Converted) -> float:
    """Largest difference from ONNX Runtime on random inputs, as `check_codes` gives it.

    Raises:
        BundleError: other shapes or types, or a difference beyond rounding.
    """
    inputs = drawn(bundle, TESTED)
    names = [i.name for i in called_with(bundle)]
    expected = run_graph(bundle.graph(EDGE), dict(zip(names, map(torch.from_numpy, inputs), strict=True)))
    step = made.batch or TESTED
    parts = [made.run([np.ascontiguousarray(a[i : i + step]) for a in inputs]) for i in range(0, TESTED, step)]
    got, shape = torch.from_numpy(np.concatenate(parts)), tuple(bundle.manifest.cut.shape)
    return check_codes("it", got, "ONNX Runtime", expected, codec(bundle.manifest), shape, "; ship edge.onnx")


def called_with(bundle: Bundle) -> list[TensorSpec]:
    """Inputs of the edge graph, in their order."""
    manifest = bundle.manifest
    return [manifest.input, *([manifest.noise] if manifest.noise else [])]


def drawn(bundle: Bundle, batch: int) -> list[Array]:
    """Random inputs of the edge graph: pictures in [0, 1], and the noise where it takes some."""
    draws = np.random.default_rng(batch)
    x, *noise = ((batch, *spec.shape[1:]) for spec in called_with(bundle))
    return [draws.random(x, dtype=np.float32), *(draws.standard_normal(n, dtype=np.float32) for n in noise)]
