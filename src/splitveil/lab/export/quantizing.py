"""An edge half in 8-bit integers: static quantisation by onnxruntime, and what it costs, measured beside floats."""

import hashlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from splitveil.core.errors import BundleError, InputError
from splitveil.core.progress import task
from splitveil.core.records import Accuracy, Quantization, Timing
from splitveil.lab.data import Dataset
from splitveil.lab.export.halves import anonymize
from splitveil.lab.seeds import hardware
from splitveil.lab.silence import quiet
from splitveil.lab.tensors import classes_of
from splitveil.wire.bundle import CARD, CLOUD, EDGE, EDGE_WEIGHTS, FLOAT_EDGE, Bundle, parts, write_bundle
from splitveil.wire.pictures.values import as_floats

Array = NDArray[Any]

MULTIPLYING = frozenset({"Conv", "MatMul", "Gemm"})
QUANTIZED = (*sorted(MULTIPLYING), "Add", "AveragePool", "Concat", "Flatten", "GlobalAveragePool", "MaxPool", "Relu")
"""What becomes integers. Neither the clipping of a defence nor the codec: their arithmetic is what was promised."""
BATCH = 32
WARM, TIMED = 20, 200
"""Calls of each edge; the two take turns."""


def write_quantized(bundle: Bundle, data: Dataset, folder: Path, *, n: int = 256, seed: int = 0) -> Bundle:
    """Write the bundle with its edge half in 8-bit integers, under a new contract.

    Activations are uint8 with one scale each, weights int8 with a scale per output channel; scales come from the
    smallest and largest values over the calibration images. Whatever follows the noise input stays float, and so do a
    defence's clipping and the codec. The card is dropped, for it is of another edge. The edge's float weights go by
    another name, so that no audit of those can pass for one of this edge: `splitveil.lab.restoring.Shipped` is audited
    by the graph and searched through them.

    Args:
        bundle: a whole bundle with a float edge.
        data: its training part calibrates, its test part measures.
        folder: where; an existing bundle is replaced.
        n: calibration images, or all where there are fewer.
        seed: of the choice of images and of the noise.

    Raises:
        InputError: already quantised, other images, or nothing to quantise.
        BundleError: one half alone, an altered file, or a graph that onnxruntime cannot quantise.
    """
    bundle.require_edge()
    bundle.require_cloud()
    manifest = bundle.manifest
    if manifest.quantization:
        raise InputError(f"{bundle.folder} is quantised already; give the bundle that it was made from.")
    if data.shape != manifest.image_shape:
        raise InputError(f"{bundle.folder} takes {manifest.image_shape} images, got {data.shape}; give its own data.")
    if len(data.classes) != len(manifest.classes):
        raise InputError(
            f"{bundle.folder} knows {len(manifest.classes)} classes, got {len(data.classes)}; give its own data."
        )
    if n < 1:
        raise InputError(f"expected 1 calibration image or more, got {n}; use --n 256.")
    draws = np.random.default_rng(seed)
    n = min(n, len(data.train))
    chosen = np.sort(draws.permutation(len(data.train))[:n])
    noise = manifest.noise.shape[1:] if manifest.noise else None
    before = bundle.graph(EDGE)
    after = quantized(before, _batches(data.train.x[chosen], noise, seed))
    measured = _measure(bundle, before, after, data, n, seed)
    files = parts(bundle, (name for name in manifest.files if name not in (CARD, EDGE, EDGE_WEIGHTS)))
    if EDGE_WEIGHTS in manifest.files:
        files[FLOAT_EDGE] = parts(bundle, [EDGE_WEIGHTS])[EDGE_WEIGHTS]
    changed = manifest.model_copy(
        update={
            "quantization": measured,
            "task_accuracy": measured.accuracy_after,
            "tested": measured.tested_after,
        }
    )
    return write_bundle(folder, changed, {**files, EDGE: after})


def quantized(edge: bytes, inputs: Sequence[dict[str, Array]]) -> bytes:
    """An ONNX graph in QDQ form, calibrated on these inputs.

    Raises:
        InputError: nothing in it multiplies.
        BundleError: onnxruntime cannot quantise it.
    """
    graph = onnx.load_from_string(edge)
    if not any(node.op_type in MULTIPLYING for node in graph.graph.node):
        raise InputError("the edge half multiplies nothing that could be quantised; leave it as it is.")
    with tempfile.TemporaryDirectory() as folder, quiet():
        given, ready, done = (Path(folder) / name for name in ("given.onnx", "ready.onnx", "done.onnx"))
        given.write_bytes(edge)
        try:
            quant_pre_process(given, ready, skip_symbolic_shape=True)
            prepared = onnx.load(ready)
            quantize_static(
                prepared,
                done,
                _Reader(inputs),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTIZED),
                nodes_to_exclude=_exact(prepared.graph),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except Exception as error:  # onnxruntime's own exceptions share no base
            reason = str(error).strip().partition("\n")[0]
            raise BundleError(f"onnxruntime cannot quantise the edge half ({reason}); ship it as floats.") from None
        made = onnx.load(done)
    anonymize(made.graph)
    made.ClearField("metadata_props")
    content: bytes = made.SerializeToString(deterministic=True)
    return content


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands the calibration inputs out, one batch a call."""

    def __init__(self, inputs: Sequence[dict[str, Array]]) -> None:
        self._left = iter(inputs)

    def get_next(self) -> dict[str, Array] | None:
        """The next batch, or None."""
        return next(self._left, None)


def _exact(graph: Any) -> list[str]:
    """Nodes that must stay as they are: what the noise reaches, and what packs codes after the codec's rounding.

    Every node gets a name first, for exclusion goes by name.
    """
    reached, names = {"noise"}, []
    for i, node in enumerate(graph.node):
        node.name = node.name or f"node_{i}"
        if node.op_type == "Round" or reached.intersection(node.input):
            reached.update(node.output)
            names.append(node.name)
    return names


def _batches(x: Array, noise: Sequence[int] | None, seed: int) -> list[dict[str, Array]]:
    """Inputs of the edge graph. x: (N, C, H, W) uint8. The noise is a test's, from a seed; a device draws its own."""
    draws = np.random.default_rng((seed, len(x)))
    batches = []
    for start in range(0, len(x), BATCH):
        part = {"x": as_floats(x[start : start + BATCH])}
        if noise is not None:
            part["noise"] = draws.standard_normal((len(part["x"]), *noise), dtype=np.float32)
        batches.append(part)
    return batches


def _measure(bundle: Bundle, before: bytes, after: bytes, data: Dataset, n: int, seed: int) -> Quantization:
    manifest = bundle.manifest
    edges = [_session(before), _session(after)]
    cloud = _session(bundle.graph(CLOUD))
    noise = manifest.noise.shape[1:] if manifest.noise else None
    batches = _batches(data.test.x, noise, seed)
    answers: list[list[Array]] = [[], []]
    with task("quantised edge on the test images", len(batches)) as show:
        for i, batch in enumerate(batches):
            for edge, told in zip(edges, answers, strict=True):
                z = edge.run(None, batch)[0]
                logits = torch.from_numpy(cloud.run(None, {manifest.features.name: z})[0])
                told.append(classes_of(logits, "the bundle").numpy())
            show(i + 1)
    was, now = (np.concatenate(told) for told in answers)
    one = {name: values[:1] for name, values in batches[0].items()}
    old, new = _timed(edges, one)

    def timing(graph: bytes, seconds: list[float]) -> Timing:
        return Timing(
            graph=EDGE, macs=manifest.cut.edge_macs, median=float(np.median(seconds)),
            p95=float(np.quantile(seconds, 0.95)), runs=len(seconds), sha256=hashlib.sha256(graph).hexdigest(),
            file_bytes=len(graph),
        )  # fmt: skip

    return Quantization(
        calibrated_on=n,
        seed=seed,
        tested_on=len(was),
        accuracy_before=float((was == data.test.y).mean()),
        accuracy_after=float((now == data.test.y).mean()),
        agreement=float((was == now).mean()),
        tested_before=Accuracy.of(int((was == data.test.y).sum()), len(was)),
        tested_after=Accuracy.of(int((now == data.test.y).sum()), len(now)),
        bytes_before=len(before),
        bytes_after=len(after),
        latency_before=timing(before, old),
        latency_after=timing(after, new),
        hardware=hardware(),
        source=manifest.contract,
    )


def _timed(edges: Sequence[Any], one: dict[str, Array]) -> tuple[list[float], ...]:
    """Seconds of each call with one picture, the sessions by turns, the first calls left out."""
    seconds: tuple[list[float], ...] = tuple([] for _ in edges)
    for turn in range(WARM + TIMED):
        for edge, kept in zip(edges, seconds, strict=True):
            begun = time.perf_counter()
            edge.run(None, one)
            if turn >= WARM:
                kept.append(time.perf_counter() - begun)
    return seconds


def _session(graph: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = 1, 1, 3
    return onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"], enable_fallback=0)
