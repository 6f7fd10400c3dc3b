"""Multiply-accumulates of one node, from the shapes in ONNX Runtime's profile."""

import math
from collections.abc import Mapping
from typing import Any

CONVOLUTIONS = ("Conv", "ConvInteger", "QLinearConv", "FusedConv")
PRODUCTS = ("MatMul", "MatMulInteger", "FusedMatMul")
UNREAD = ("ConvTranspose", "QLinearMatMul", "Attention", "MultiHeadAttention", "Einsum", "LSTM", "GRU", "RNN")
"""Operators that multiply and that this does not read: their graph's count is unknown."""


def macs_of(node: Mapping[str, Any]) -> int | None:
    """Multiply-accumulates of one sample; 0 for what only adds, compares or moves; None where it is unknown.

    Args:
        node: ``args`` of a profiler's entry; its first axis is the batch.
    """
    op = node["op_name"]
    if op in UNREAD:
        return None
    if op not in (*CONVOLUTIONS, *PRODUCTS, "Gemm"):
        return 0
    given, made = _shapes(node["input_type_shape"]), _shapes(node["output_type_shape"])
    if len(given) < 2 or not made or not made[0]:
        return None
    if op in CONVOLUTIONS:
        # QLinearConv: x, its scale and zero point (which may be scalars), then the weight.
        weight = next((shape for shape in given[1:] if len(shape) == len(given[0])), None)
        return None if weight is None else math.prod(made[0][1:]) * math.prod(weight[1:])
    inner = math.prod(given[0]) // made[0][0] if op == "Gemm" else given[0][-1]
    return math.prod(made[0][1:]) * inner


def _shapes(tensors: list[dict[str, list[int]]]) -> list[list[int]]:
    return [shape for tensor in tensors for shape in tensor.values()]
