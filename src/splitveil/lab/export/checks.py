"""Whether exported halves are what they should be: the same numbers as torch, and no weight on the wrong side."""

import hashlib
from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from splitveil.core.errors import BundleError
from splitveil.lab.cut.pieces import Piece
from splitveil.lab.export.graphs import CloudGraph, EdgeGraph, Sent
from splitveil.lab.probing import probe
from splitveil.wire.codecs import Codec

TOLERANCE = 1e-4
"""Largest difference between onnxruntime and torch, relative to the larger of 1 and the value."""
TIES = 1e-3
"""Share of codes that may differ by one, where rounding met a tie."""
HALF_STEP = 1.01 * 2**-10
"""One step of a 16-bit float, by which a feature may differ where rounding met a tie; relative as above."""


def run_graph(graph: bytes, inputs: Mapping[str, Tensor]) -> Tensor:
    """The first output of an ONNX graph in ONNX Runtime, on the processor. inputs: by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    return torch.from_numpy(session.run(None, {k: v.numpy() for k, v in inputs.items()})[0])


def check_halves(
    edge: EdgeGraph, cloud: CloudGraph, edge_onnx: bytes, cloud_onnx: bytes, inputs: tuple[Tensor, ...]
) -> None:
    """Hold onnxruntime against torch, half by half, so that the message can say which differs."""
    expected = edge(*inputs)
    codes = run_graph(edge_onnx, dict(zip(("x", "noise"), inputs, strict=False)))
    at = f" at batch {len(expected)}; report it with the model, or choose another cut"
    check_codes("the exported edge half", codes, "torch", expected, edge.codec, cloud.shape, at)
    logits = run_graph(cloud_onnx, {"z": codes})
    _apart("the exported cloud half", logits, "torch", cloud(codes), at)
    if codes.dtype == torch.float32:
        _apart("the exported edge and then cloud half", logits, "torch", cloud(expected), at)


def check_codes(
    which: str, got: Tensor, reference: str, expected: Tensor, codec: Codec, shape: tuple[int, ...], advice: str
) -> float:
    """Hold what crosses the wire against what should: codes up to ties in rounding, floats up to rounding.

    Args:
        which: whose output it is, for the message.
        got: (N, *packed), as it crosses.
        reference: what gave `expected`, for the message.
        expected: (N, *packed).
        codec: that packed both.
        shape: of one sample's features.
        advice: ends the message.

    Returns:
        The largest difference: of codes in steps, of floats relative to the larger of 1 and the value.

    Raises:
        BundleError: another shape or datatype, or a difference beyond rounding.
    """
    if got.shape != expected.shape or got.dtype != expected.dtype:
        told = [f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in (got, expected)]
        raise BundleError(f"{which} gives {told[0]}, {reference} {told[1]}{advice}.")
    if got.dtype != torch.uint8:
        tolerance = TOLERANCE if got.dtype == torch.float32 else HALF_STEP
        return _apart(which, got.float(), reference, expected.float(), advice, tolerance)
    steps = (codec.unpack(got, shape) - codec.unpack(expected, shape)).abs()
    if steps.max() > 1 or int(steps.sum()) > max(1, TIES * steps.numel()):
        raise BundleError(f"{which} differs from {reference} in {int((steps > 0).sum())} codes{advice}.")
    return float(steps.max())


def _apart(
    which: str, got: Tensor, reference: str, expected: Tensor, advice: str, tolerance: float = TOLERANCE
) -> float:
    worst = (
        float(((got - expected).abs() / expected.abs().clamp_min(1.0)).max()) if got.shape == expected.shape else np.inf
    )
    if not worst <= tolerance:
        raise BundleError(f"{which} differs from {reference} by {worst:.1e}{advice}.")
    return worst


def refuse_unsteady(edge: EdgeGraph, cloud: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Neither half may be random by itself, mix the images of a batch, or give NaN or infinity.

    Args:
        edge: probed with its defence, whose noise is an input, and before its codec, whose rounding hides much.
        cloud: on features as they come from that edge.
        inputs: three images (3, C, H, W), and the noise for them where the defence takes some.
    """
    sent = Sent(edge.edge, edge.defense)
    for which, half, given in (("edge", sent, inputs), ("cloud", cloud, (sent(*inputs),))):
        if told := probe(half, given, images=which == "edge").words:
            raise BundleError(f"the {which} half cannot ship: {told}.")


def refuse_shared(edge: nn.Module, cloud: nn.Module) -> None:
    held = {p.data_ptr() for p in edge.parameters() if p.numel()}
    for name, parameter in cloud.named_parameters():
        if parameter.data_ptr() in held:
            raise BundleError(f"the weight {name!r} is in both halves; choose a cut that does not share it.")


def refuse_leaked(edge: nn.Module, cloud: nn.Module, edge_onnx: bytes) -> None:
    """No weight of the cloud may ship to the device; constant tensors (fresh biases, scales) say nothing.

    Nor does a table that both halves keep as a buffer (rotary, relative positions), or another weight of the same model
    that begins with the same numbers and is the edge's own (the layers of an nn.TransformerEncoder are copies of one).
    """
    held = {
        hashlib.sha256(onnx.numpy_helper.to_array(t).tobytes()).digest()
        for t in onnx.load_from_string(edge_onnx).graph.initializer
    }
    tables = {_digest(buffer) for buffer in edge.buffers()}
    own = {(_digest(weight), name) for name, weight in _of_one_model(edge).values()}
    origin, buffers = _of_one_model(cloud), dict(cloud.named_buffers())
    for name, weight in cloud.state_dict().items():
        telling = weight.numel() > 1 and bool((weight != weight.flatten()[0]).any())
        digest = _digest(weight)
        if not telling or digest not in held or (name in buffers and digest in tables):
            continue
        if name not in origin or not any(d == digest and other != origin[name][0] for d, other in own):
            raise BundleError(f"the cloud's weight {name!r} is in the exported edge half; choose another cut.")


def _of_one_model(half: nn.Module) -> dict[str, tuple[str, Tensor]]:
    """Weights that a tracer gave this half, by their names here: their names in the model, under which each is one."""
    return {
        f"{path}.{name}" if path else name: (name, weight)
        for path, part in half.named_modules()
        if isinstance(part, Piece)
        for name, weight in part.state_dict().items()
    }


def _digest(tensor: Tensor) -> bytes:
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).digest()
