"""What a cut costs in time here, in torch. Links are in `profiling.links`; sizes and MACs are the `Cut` record's."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from splitveil.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of one call. median, p95: over `runs` calls after the warm-up."""

    median: float
    p95: float
    runs: int


def latency(fn: Callable[[Tensor], object], example: Tensor, *, warmup: int = 5, runs: int = 50) -> Latency:
    """Time of ``fn(example)`` without gradients, on the device that the example lies on.

    Args:
        fn: an edge half, a cloud half or both.
        example: (N, ...); one sample for what a device feels.
        warmup: calls that are not counted.
        runs: calls that are, more than 20 for a 95th percentile that is not the maximum.

    Raises:
        InputError: no run.
    """
    if runs < 1 or warmup < 0:
        raise InputError(f"expected 1 run or more and a warm-up of 0 or more, got {runs} and {warmup}; use 50 and 5.")
    seconds = []
    with torch.inference_mode():
        for k in range(warmup + runs):
            _finish(example)
            start = time.perf_counter()
            fn(example)
            _finish(example)
            if k >= warmup:
                seconds.append(time.perf_counter() - start)
    times = torch.tensor(seconds, dtype=torch.float64)
    return Latency(times.quantile(0.5).item(), times.quantile(0.95, interpolation="higher").item(), runs)


def _finish(example: Tensor) -> None:
    if example.is_cuda:
        torch.cuda.synchronize(example.device)
