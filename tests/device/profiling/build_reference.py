"""Builds ``reference.onnx`` of `splitveil.device.profiling`; run as a module it writes the file anew."""

from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

PATH = Path(__file__).parents[3] / "src" / "splitveil" / "device" / "profiling" / "reference.onnx"
LAYERS = ((32, 32, 3, 1), (32, 64, 1, 1), (64, 32, 1, 1), (32, 32, 3, 1), (32, 32, 3, 2))
"""Channels in and out, kernel, stride; a ReLU behind each."""


def build() -> bytes:
    """The graph: x (batch, 32, 32, 32) -> y (batch, 32, 16, 16)."""
    nodes, weights, at = [], [], "x"
    for k, (wide_in, wide_out, kernel, stride) in enumerate(LAYERS):
        pad = kernel // 2
        weights.append(numpy_helper.from_array(_weight(k, (wide_out, wide_in, kernel, kernel)), f"w{k}"))
        nodes.append(
            helper.make_node(
                "Conv", [at, f"w{k}"], [f"c{k}"], name=f"conv{k}", kernel_shape=[kernel] * 2, pads=[pad] * 4,
                strides=[stride] * 2,
            )
        )  # fmt: skip
        at = "y" if k == len(LAYERS) - 1 else f"r{k}"
        nodes.append(helper.make_node("Relu", [f"c{k}"], [at], name=f"relu{k}"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 32, 32, 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 32, 16, 16])
    graph = helper.make_graph(nodes, "reference", [x], [y], weights)
    model = helper.make_model(
        graph, producer_name="splitveil", opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    return cast(bytes, model.SerializeToString(deterministic=True))


def _weight(layer: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Spread evenly about 0 by Knuth's multiplicative hash: the same on every machine and in every version of NumPy."""
    k = np.arange(np.prod(shape), dtype=np.uint64) + np.uint64(1_000_003 * layer)
    even = (k * np.uint64(2_654_435_761) % np.uint64(2**32)).astype(np.float64) / 2**32 - 0.5
    # Variance 2 / fan-in keeps activations alive through the ReLUs: no subnormals, which some processors run slowly.
    scaled: NDArray[np.float32] = (even * np.sqrt(12 * 2 / np.prod(shape[1:]))).astype(np.float32)
    return scaled.reshape(shape)


if __name__ == "__main__":
    PATH.write_bytes(build())
