"""What every step of a graph yields and costs, found without computing anything (fake tensors).

A multiply-accumulate is half a floating-point operation of ``torch.utils.flop_counter``: convolutions, linear layers,
matrix products and attention count; elementwise operations, normalisation and pooling do not.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from splitveil.lab.cut.capture import no_fast_path

FP32_BYTES = 4


def _attention(query: Any, key: Any, value: Any, *_: object, **__: object) -> int:
    flops: int = sdpa_flop_count(query, key, value)
    return flops


UNCOUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}


@dataclass(frozen=True, slots=True)
class NodeRun:
    """What one node yields for one batch size, and its multiply-accumulates."""

    value: Any
    macs: int

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors in the value."""
        return [t for t in tree_leaves(self.value) if isinstance(t, Tensor)]

    @property
    def memory(self) -> dict[int, int]:
        """Storage -> fp32 bytes; views of one storage share its key."""
        return {
            t.untyped_storage()._cdata: t.untyped_storage().nbytes() // t.element_size() * FP32_BYTES
            for t in self.tensors
        }


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, counter: FlopCounterMode) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.counter, self.steps = counter, dict[fx.Node, NodeRun]()

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Without gradient: the counter's hooks on modules cannot take views of parameters made under no_grad."""
        value = super().get_attr(target, args, kwargs)
        return value.detach() if isinstance(value, Tensor) else value

    def run_node(self, n: fx.Node) -> Any:
        before = self.counter.get_total_flops()
        value = super().run_node(n)
        self.steps[n] = NodeRun(value, (self.counter.get_total_flops() - before) // 2)
        return value


def steps(module: fx.GraphModule, example: Tensor, batch: int) -> dict[fx.Node, NodeRun]:
    """Run `module` on `batch` fake images like `example`: (N, C, H, W)."""
    with _fake() as counter:
        recorder = _Recorder(module, counter)
        recorder.run(example.new_empty((batch, *example.shape[1:])))
    return recorder.steps


def module_macs(module: nn.Module, shape: tuple[int, ...], like: Tensor) -> int:
    """Multiply-accumulates of one sample of `shape`."""
    with _fake() as counter:
        module(like.new_empty((1, *shape)))
    return counter.get_total_flops() // 2


def largest_step(module: nn.Module, x: Tensor) -> int:
    """Input and output bytes (fp32) of the hungriest innermost module; x: (1, C, H, W). For modules without a graph."""
    sizes = [x.numel()]

    def note(_: nn.Module, given: Any, out: Any) -> None:
        sizes.append(sum(t.numel() for t in tree_leaves((given, out)) if isinstance(t, Tensor)))

    innermost = [m for m in module.modules() if not any(m.children())]
    handles = [m.register_forward_hook(note) for m in innermost]
    try:
        with torch.no_grad():
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    return FP32_BYTES * max(sizes)


def numel(shape: tuple[int, ...]) -> int:
    """Elements of one sample."""
    return math.prod(shape)


@contextmanager
def _fake() -> Iterator[FlopCounterMode]:
    with (
        torch.no_grad(),
        no_fast_path(),
        FakeTensorMode(allow_non_fake_inputs=True),
        FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter,
    ):
        yield counter
