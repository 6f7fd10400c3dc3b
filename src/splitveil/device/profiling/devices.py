"""Devices to plan for: presets as data, this machine, and files that `splitveil profile` wrote elsewhere."""

from pathlib import Path

from splitveil.core.errors import InputError, UnknownNameError
from splitveil.core.records.device import Device
from splitveil.core.registry import nearest
from splitveil.device.profiling import machine
from splitveil.device.profiling.reference import HERE, REFERENCE_RUNS, reference_speed

TYPICAL = "typical, not a measurement: round numbers of ours"
MB, GB = 10**6, 10**9


def _preset(name: str, macs_per_second: float, memory: int, storage: int, what: str) -> Device:
    return Device(
        name=name,
        macs_per_second=macs_per_second,
        memory_bytes=memory,
        storage_bytes=storage,
        source=f"{TYPICAL}; {what}",
    )


DEVICES: dict[str, Device] = {
    d.name: d
    for d in (
        _preset("mcu", 1e8, 1 * MB, 2 * MB, "a large microcontroller, which runs no ONNX Runtime: limits to plan with"),
        _preset("pi4", 3e9, 4 * GB, 32 * GB, "Raspberry Pi 4 class, one core"),
        _preset("pi5", 1e10, 8 * GB, 32 * GB, "Raspberry Pi 5 class, one core"),
        _preset("phone", 2e10, 6 * GB, 128 * GB, "one large core of a recent phone"),
        _preset("jetson", 1e11, 8 * GB, 64 * GB, "Jetson class with its GPU busy, which our edge, on the CPU, is not"),
    )
}
"""Presets by name, slowest first. Real boards differ by a factor of two and more; `splitveil profile` measures one."""


def measure_here(threads: int = 1, *, runs: int = REFERENCE_RUNS, name: str = HERE) -> Device:
    """Measure this machine: the reference graph timed now, memory and free storage as the system tells them.

    Raises:
        InputError: no thread or no run.
    """
    return Device(
        name=name,
        macs_per_second=reference_speed(threads, runs=runs),
        threads=threads,
        memory_bytes=machine.memory_bytes(),
        storage_bytes=machine.storage_bytes(),
        source=f"measured {machine.today()}, reference graph, median of {runs} runs, threads={threads}",
        hardware=machine.hardware(),
        versions=machine.versions(),
    )


def find_device(name_or_path: str | Path, *, threads: int = 1) -> Device:
    """A preset by its name, ``here`` (measured now), or a file from ``splitveil profile --out``.

    Args:
        name_or_path: whatever ends in ``.json`` is a file.
        threads: of ``here``.

    Raises:
        UnknownNameError: neither a name nor a file.
        InputError: a file that holds no device, or one without a speed.
    """
    text = str(name_or_path)
    if text == HERE:
        return measure_here(threads)
    if text in DEVICES:
        return DEVICES[text]
    path = Path(text)
    if path.suffix != ".json":
        known = [*DEVICES, HERE]
        raise UnknownNameError(
            f"unknown device {text!r}.{nearest(text, known)} Known: {', '.join(known)}, or a .json file that "
            "`splitveil profile --out` wrote."
        )
    found = Device.load(path)
    if not found.macs_per_second > 0:
        raise InputError(f"{path} gives {found.macs_per_second} MACs/s; write it anew with `splitveil profile --out`.")
    return found
