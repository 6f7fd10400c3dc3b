"""One graph for all machines, so that their speeds compare, and what its speed says of another graph there."""

from importlib.resources import files

from splitveil.core.errors import InputError
from splitveil.core.records.device import Device, Timing
from splitveil.core.records.plan import Figure
from splitveil.device.profiling.graph import time_graph

FILE = "reference.onnx"
"""A small CNN on (N, 32, 32, 32): 3x3, 1x1 and strided convolutions; ``tests/device/profiling/build_reference.py``."""
MACS = 2 * 9_437_184 + 2 * 2_097_152 + 2_359_296
"""Multiply-accumulates of one sample through it."""

HERE = "here"
"""Name of the machine that asks."""
REFERENCE_WARMUP, REFERENCE_RUNS = 20, 100
"""A call takes a third of a millisecond on a server's core: more of them, for clocks that rise under load."""


def reference_graph() -> bytes:
    """The graph's content."""
    return (files("splitveil.device.profiling") / FILE).read_bytes()


def time_reference(threads: int = 1, *, warmup: int = REFERENCE_WARMUP, runs: int = REFERENCE_RUNS) -> Timing:
    """Time the reference graph here, one sample a call.

    Raises:
        InputError: no thread or no run.
    """
    return time_graph(reference_graph(), threads=threads, warmup=warmup, runs=runs, name="reference")


def reference_speed(threads: int = 1, *, warmup: int = REFERENCE_WARMUP, runs: int = REFERENCE_RUNS) -> float:
    """Multiply-accumulates a second of the reference graph: what `Device.macs_per_second` means.

    Raises:
        InputError: no thread or no run.
    """
    return MACS / time_reference(threads, warmup=warmup, runs=runs).median


def scaled(timing: Timing, here: Device, there: Device) -> Figure:
    """Seconds of one call on another device, from what the same graph took here.

    Where the other device has timed that very graph (same file; the same name where a hash is missing; same batch),
    its own median is the answer and counts as measured. Else our reading: the time here, times the ratio of both
    reference speeds. That is right for a graph that convolutions keep busy; what waits for memory, and what each
    node and call costs before it computes, follows other ratios, and small graphs consist of little else.

    Raises:
        InputError: a device without a speed.
    """
    for own in there.timings:
        if _same(own, timing):
            return Figure(value=own.median, measured=True, source=f"{there.name}: median of {own.runs} runs there")
    if there == here or _this_machine(here, there):
        return Figure(value=timing.median, measured=True, source=f"{here.name}: median of {timing.runs} runs")
    if min(here.macs_per_second, there.macs_per_second) <= 0:
        raise InputError(
            f"expected speeds above 0, got {here.macs_per_second} and {there.macs_per_second} MACs/s; "
            "write the device's file anew with `splitveil profile`."
        )
    factor = here.macs_per_second / there.macs_per_second
    return Figure(
        value=timing.median * factor,
        measured=False,
        source=f"scaled from {here.name} by {factor:.3g}, the ratio of reference speeds ({there.name}: {there.source})",
    )


def _this_machine(here: Device, there: Device) -> bool:
    """Two measurements of the machine that asks: their speeds differ by nothing but the moment."""
    return here.name == there.name == HERE and here.hardware == there.hardware and here.threads == there.threads


def _same(own: Timing, timing: Timing) -> bool:
    if own.batch != timing.batch:
        return False
    if own.sha256 and timing.sha256:
        return own.sha256 == timing.sha256
    return own.graph == timing.graph
