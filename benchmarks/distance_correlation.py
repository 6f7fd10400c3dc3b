"""Distance correlation as a training loss: one Gram matrix beside the broadcast form of published code.

The plain way: ``x[:, None] - x[None, :]``, squares, a sum and a root of it plus 1e-10, in float32. Ours:
``splitveil.lab.metrics.dependence.distance_correlation``. Forward and backward to z, once with x as data (what training
does) and once with a gradient to x as well. The two take turns; the first turn is dropped; medians.

Memory: each side runs alone in a fresh process, which has computed a tiny case before; what counts is the largest
resident size of its life less what was resident when the inputs were there. The kernel's VmHWM, because ru_maxrss, the
same quantity, is handed down from the parent process and would show this one's.

    python -m benchmarks.distance_correlation [--save docs/results/distance-correlation.md]
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.page import save_tables
from splitveil.lab.metrics.dependence import distance_correlation
from splitveil.lab.seeds import generator, hardware

INPUT, FEATURES = (3, 64, 64), (12, 16, 16)
SMALL, LARGE = 128, 4096
MIB = 2**20


def broadcast(x: Tensor, z: Tensor) -> Tensor:
    """The same number by all differences. x: (N, ...), z: (N, ...) -> scalar."""
    centred = []
    for t in (x.flatten(1), z.flatten(1)):
        a = ((t[:, None] - t[None, :]).square().sum(2) + 1e-10).sqrt()
        centred.append(a - a.mean(0) - a.mean(1, keepdim=True) + a.mean())
    a, b = centred
    return (a * b).mean() / ((a * a).mean() * (b * b).mean()).sqrt()


SIDES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"plain": broadcast, "ours": distance_correlation}


def pair(n: int) -> tuple[Tensor, Tensor]:
    """Images, smooth and so correlated, and features that hold a part of them: (n, 3, 64, 64) and (n, 12, 16, 16)."""
    draws = generator(0, "pair", n)
    x = torch.nn.functional.interpolate(torch.rand(n, 3, 8, 8, generator=draws), size=INPUT[1:], mode="bilinear")
    seen = torch.nn.functional.avg_pool2d(x, 4).repeat(1, 4, 1, 1)
    return x, (seen + 0.1 * torch.randn(n, *FEATURES, generator=draws)).relu()


def step(side: str, x: Tensor, z: Tensor) -> tuple[float, Tensor]:
    """The value and the gradient to z, forward and backward."""
    z = z.detach().requires_grad_(True)
    x.grad = None
    value = SIDES[side](x, z)
    value.backward()
    assert z.grad is not None
    return value.item(), z.grad


def status(name: str) -> int:
    """Bytes under this name in /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


def peak(side: str, n: int) -> None:
    """Print value, seconds and extra bytes of one step, in this process alone."""
    step(side, *pair(4))
    x, z = pair(n)
    z.requires_grad_(True)
    resident = status("VmRSS")
    start = time.perf_counter()
    value = SIDES[side](x, z)
    value.backward()
    seconds = time.perf_counter() - start
    print(value.item(), seconds, status("VmHWM") - resident)


def alone(side: str, n: int) -> tuple[float, float, float]:
    """(value, seconds, extra bytes) of a fresh process."""
    command = [sys.executable, "-m", "benchmarks.distance_correlation", "--peak", side, "--samples", str(n)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    value, seconds, extra = map(float, done.stdout.split())
    return value, seconds, extra


def medians(n: int, turns: int, data: bool) -> dict[str, float]:
    """Seconds of each side's step, turn about."""
    x, z = pair(n)
    x.requires_grad_(not data)
    clock: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn in range(turns + 1):
        for side, seconds in clock.items():
            start = time.perf_counter()
            step(side, x, z)
            if turn:
                seconds.append(time.perf_counter() - start)
    return {side: statistics.median(seconds) for side, seconds in clock.items()}


def main() -> None:
    """Run the comparison and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--save", type=Path, help="write the tables as Markdown")
    parser.add_argument("--peak", choices=list(SIDES), help="only this side's memory, for the fresh process")
    parser.add_argument("--samples", type=int, default=SMALL, help="of --peak")
    args = parser.parse_args()
    if args.peak:
        peak(args.peak, args.samples)
        return

    x, z = pair(SMALL)
    (a, slope_a), (b, slope_b) = (step(side, x, z) for side in SIDES)
    memory = {side: alone(side, SMALL)[2] / MIB for side in SIDES}
    machine = f"{hardware()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    head = f"N = {SMALL}, x {INPUT}, z {FEATURES}, {machine}"
    lines = [
        head, "",
        "| forward and backward | plain, ms | ours, ms | ratio |", "|---|---|---|---|",
    ]  # fmt: skip
    for name, data in (("gradient to z", True), ("gradient to x and z", False)):
        t = medians(SMALL, args.turns, data)
        lines.append(f"| {name} | {1e3 * t['plain']:.0f} | {1e3 * t['ours']:.1f} | **{t['plain'] / t['ours']:.0f}** |")
    lines += [
        "",
        "| | plain | ours | difference |", "|---|---|---|---|",
        f"| extra memory at its peak, MiB | {memory['plain']:.0f} | {memory['ours']:.0f} | |",
        f"| value | {a:.6f} | {b:.6f} | {abs(a - b):.1e} |",
        f"| norm of the gradient | {slope_a.norm():.3e} | {slope_b.norm():.3e} "
        f"| {(slope_a - slope_b).norm() / slope_a.norm():.1e} of it |",
    ]  # fmt: skip
    value, seconds, extra = alone("ours", LARGE)
    lines += [
        "",
        f"Ours at N = {LARGE}: {seconds:.1f} s, {extra / MIB:.0f} MiB extra at the peak, value {value:.6f}.",
    ]
    print("\n".join(lines))
    if args.save:
        save_tables(args.save, "Speed of the distance correlation", __doc__, lines)


if __name__ == "__main__":
    main()
