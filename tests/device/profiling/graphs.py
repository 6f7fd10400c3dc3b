"""Small ONNX graphs by hand."""

from collections.abc import Sequence
from typing import cast

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node

FREE = ("batch", 3, 8, 8)


def classifier(axes: Sequence[int | str] = FREE, width: int = 8) -> bytes:
    """Convolution, ReLU, flatten, linear layer of 5; x: (N, 3, 8, 8)."""
    nodes = [
        make_node("Conv", ["x", "w"], ["a"], name="conv", pads=[1] * 4),
        make_node("Relu", ["a"], ["b"], name="relu"),
        make_node("Flatten", ["b"], ["f"], name="flatten"),
        make_node("Gemm", ["f", "v"], ["y"], name="linear"),
    ]
    weights = {"w": (width, 3, 3, 3), "v": (width * 64, 5)}
    return graph(nodes, {"x": (TensorProto.FLOAT, axes)}, weights)


def classifier_macs(width: int = 8) -> int:
    """Of one sample, by hand."""
    return width * 64 * 27 + width * 64 * 5


def graph(
    nodes: list[NodeProto],
    inputs: dict[str, tuple[int, Sequence[int | str]]],
    weights: dict[str, tuple[int, ...]],
    output: int = TensorProto.FLOAT,
) -> bytes:
    """A graph with output ``y`` and weights of the given shapes."""
    rng = np.random.default_rng(0)
    held = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name) for name, shape in weights.items()
    ]
    given = [helper.make_tensor_value_info(name, kind, list(axes)) for name, (kind, axes) in inputs.items()]
    made = helper.make_tensor_value_info("y", output, None)
    whole = helper.make_graph(nodes, "g", given, [made], held)
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return cast(bytes, model.SerializeToString())
