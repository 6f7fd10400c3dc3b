"""What a cut costs in time: latency as measured, and what a link adds. Sizes and MACs are the `Cut` record's."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from splitveil.errors import InputError


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of one call. median, p95: over `runs` calls after the warm-up."""

    median: float
    p95: float
    runs: int


@dataclass(frozen=True, slots=True)
class Link:
    """A way from device to server.

    Attributes:
        bandwidth_bits: usable bits a second upwards.
        rtt_seconds: time of an empty request and its answer.
        source: where the numbers are from.
    """

    bandwidth_bits: float
    rtt_seconds: float
    source: str = "given"

    def __post_init__(self) -> None:
        if not (self.bandwidth_bits > 0 and self.rtt_seconds >= 0):
            raise InputError(
                f"expected a bandwidth above 0 and a round trip of 0 or more, got {self.bandwidth_bits} bit/s and "
                f"{self.rtt_seconds} s; write for example Link(10e6, 0.05)."
            )


TYPICAL = "typical uplink, round numbers of ours, not a measurement"

LINKS: dict[str, Link] = {
    "3g": Link(1e6, 0.100, TYPICAL),
    "lte": Link(10e6, 0.050, TYPICAL),
    "wifi": Link(30e6, 0.010, TYPICAL),
    "5g": Link(50e6, 0.020, TYPICAL),
}
"""Presets by name. Real links differ by an order of magnitude; measure one's own."""


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


def transmission_seconds(bits: float, link: Link) -> float:
    """``bits / bandwidth + round trip``: no loss, no slow start, and an answer too small to count.

    Raises:
        InputError: fewer than 0 bits.
    """
    if bits < 0:
        raise InputError(f"expected 0 bits or more, got {bits}; give 8 * codec.payload_bytes(elements).")
    return bits / link.bandwidth_bits + link.rtt_seconds


def _finish(example: Tensor) -> None:
    if example.is_cuda:
        torch.cuda.synchronize(example.device)
