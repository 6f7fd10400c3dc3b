"""Whether exported halves are what they should be: the same numbers as torch, and no weight on the wrong side."""

import hashlib
from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from splitveil.errors import BundleError
from splitveil.export.graphs import CloudGraph, EdgeGraph

TOLERANCE = 1e-4
"""Largest difference between onnxruntime and torch, relative to the larger of 1 and the value."""
TIES = 1e-3
"""Share of codes that may differ by one, where rounding met a tie."""
HALF_STEP = 1.01 * 2**-10
"""One step of a 16-bit float, by which a feature may differ where rounding met a tie; relative as above."""


def _run(graph: bytes, inputs: Mapping[str, Tensor]) -> Tensor:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {k: v.numpy() for k, v in inputs.items()})[0])


def check_halves(
    edge: EdgeGraph, cloud: CloudGraph, edge_onnx: bytes, cloud_onnx: bytes, inputs: tuple[Tensor, ...]
) -> None:
    """Hold onnxruntime against torch, half by half, so that the message can say which differs."""
    expected = edge(*inputs)
    codes = _run(edge_onnx, dict(zip(("x", "noise"), inputs, strict=False)))
    at = f"at batch {len(expected)}; report it with the model, or choose another cut"
    if codes.shape != expected.shape or codes.dtype != expected.dtype:
        raise BundleError(f"the exported edge half gives {tuple(codes.shape)}, torch {tuple(expected.shape)} {at}.")
    rounded = codes.dtype != torch.float32
    if codes.dtype == torch.uint8:
        steps = (edge.codec.unpack(codes, cloud.shape) - edge.codec.unpack(expected, cloud.shape)).abs()
        if steps.max() > 1 or int(steps.sum()) > max(1, TIES * steps.numel()):
            raise BundleError(f"the exported edge half differs from torch in {int((steps > 0).sum())} codes {at}.")
    else:
        _refuse_difference("edge", codes.float(), expected.float(), at, HALF_STEP if rounded else TOLERANCE)
    logits = _run(cloud_onnx, {"z": codes})
    _refuse_difference("cloud", logits, cloud(codes), at)
    if not rounded:
        _refuse_difference("edge and then cloud", logits, cloud(expected), at)


def _refuse_difference(which: str, got: Tensor, expected: Tensor, at: str, tolerance: float = TOLERANCE) -> None:
    worst = ((got - expected).abs() / expected.abs().clamp_min(1.0)).max() if got.shape == expected.shape else np.inf
    if not worst <= tolerance:
        raise BundleError(f"the exported {which} half differs from torch by {float(worst):.1e} {at}.")


def refuse_shared(edge: nn.Module, cloud: nn.Module) -> None:
    held = {p.data_ptr() for p in edge.parameters() if p.numel()}
    for name, parameter in cloud.named_parameters():
        if parameter.data_ptr() in held:
            raise BundleError(f"the weight {name!r} is in both halves; choose a cut that does not share it.")


def refuse_leaked(cloud: nn.Module, edge_onnx: bytes) -> None:
    """No weight of the cloud may ship to the device; constant tensors (fresh biases, scales) say nothing."""
    held = {
        hashlib.sha256(onnx.numpy_helper.to_array(t).tobytes()).digest()
        for t in onnx.load_from_string(edge_onnx).graph.initializer
    }
    for name, weight in cloud.state_dict().items():
        telling = weight.numel() > 1 and bool((weight != weight.flatten()[0]).any())
        if telling and hashlib.sha256(weight.contiguous().numpy().tobytes()).digest() in held:
            raise BundleError(f"the cloud's weight {name!r} is in the exported edge half; choose another cut.")
