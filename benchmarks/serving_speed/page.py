"""The page docs/results/serving.md from what one run measured, limits first."""

import statistics
from collections.abc import Callable, Iterable
from typing import NamedTuple

from benchmarks.serving_speed.contestants import SPLITVEIL
from benchmarks.serving_speed.records import ServingRun, Window

RATIO, ADDED_MS, START, MEMORY_MB, IMPORT = 0.85, 1.5, 1.0, 200.0, 0.7
"""What the server is held to."""
FREE = 0.9
"""Of a core that the bare engine gets where nobody else wants it."""

HOW = {
    SPLITVEIL: "SplitVeil: one `splitveil serve` for both protocols, without options, all checks on.",
    "LitServe": "LitServe: base64 in JSON, which is what it takes; one worker, its own batching with a wait of 1 ms.",
    "KServe": "KServe: its Python server, binary tensors; it has no batching of its own.",
    "Triton": (
        "Triton: the core 2.51 out of the wheel nvidia-pytriton (the version below is the wheel's) on the repository "
        "that `splitveil bundle export --to triton` writes, Python backend with onnxruntime inside."
    ),
    "Ray Serve": (
        "Ray Serve: one replica, raw bytes, its own batching without a wait; measured after the others had stopped, "
        "since its processes are busy even when nobody asks, and beside the bare engine all the same."
    ),
}
"""What each was given."""


class Limit(NamedTuple):
    """One demand, what was measured, and whether it is met; None where the machine was too busy to tell."""

    what: str
    wanted: str
    measured: str
    met: bool | None

    @property
    def verdict(self) -> str:
        """One word."""
        return {True: "pass", False: "FAIL", None: "undecided"}[self.met]


def limits(run: ServingRun) -> list[Limit]:
    """The demands on our own server, from medians over rounds.

    On a busy machine ratios and differences of times by the clock decide nothing, in either direction; a wait that is
    too long is no failure as long as its processor time is within the limit.
    """
    found = []
    free = _share(run) >= FREE
    protocols = sorted({w.protocol for w in run.windows if w.server == SPLITVEIL})
    for protocol in protocols:
        at_32 = _ours(run, protocol, 32)
        if at_32:
            ratio = _median(map(_ratio, at_32))
            said = f"{ratio:.2f} ({_spread(map(_ratio, at_32))})"
            what = f"{protocol}: rows/s at concurrency 32 over bare at batch 32"
            found.append(Limit(what, f">= {RATIO}", said, ratio >= RATIO if free else None))
    for protocol in protocols:
        at_1 = _ours(run, protocol, 1)
        if at_1:
            added = _median(map(_added, at_1))
            said = f"{added:.2f} ms ({_spread(map(_added, at_1))})"
            what = f"{protocol}: p50 at concurrency 1, added to bare at batch 1"
            found.append(Limit(what, f"<= {ADDED_MS} ms", said, added <= ADDED_MS if free else None))
    for process in run.processes:
        if process.server == SPLITVEIL and process.model == "resnet18":
            wall, cpu = _median(process.start_seconds), _median(process.start_cpu_seconds)
            said = f"{wall:.2f} s ({_spread(process.start_seconds)}); processor time {cpu:.2f} s"
            what = "start, from spawn to the first right answer"
            found.append(Limit(what, f"< {START:.0f} s", said, _within(wall, cpu, START, free)))
            rss = max(process.rss_mb, process.rss_after_mb or 0.0)
            said = f"RSS {rss:.0f} MB (PSS {max(process.pss_mb, process.pss_after_mb or 0.0):.0f} MB)"
            found.append(Limit("memory, after the load", f"< {MEMORY_MB:.0f} MB", said, rss < MEMORY_MB))
    wall, cpu = _median(run.device_import.seconds), _median(run.device_import.cpu_seconds)
    said = f"{wall:.2f} s ({_spread(run.device_import.seconds)}); processor time {cpu:.2f} s"
    met = _within(wall, cpu, IMPORT, free)
    found.append(Limit("the device's import, without torch", f"< {IMPORT} s", said, met))
    return found


def to_markdown(run: ServingRun, records: str) -> str:
    """Markdown; `records` links to what was measured."""
    machine = ", ".join(run.hardware.values())
    head = (
        "# Speed of the server\n\n"
        "    make bench-serving\n\n"
        "One cloud half for all: ResNet-18 cut after stage 2, 10.5 M parameters behind the cut (42 MB of ONNX), "
        f"features 128x8x8, {run.feature_bytes // 1024} KiB in 32-bit floats a row, random weights. One thread of "
        "onnxruntime for each server and for the bare engine. A client is one connection with one row at a time. "
        f"Windows of {run.window_seconds:g} s after {run.warmup_seconds:g} s that do not count, each between two "
        "windows of the bare engine in a process of its own; ratios and added times are against those two. "
        f"Medians over {run.rounds} rounds; in brackets the least and the largest round.\n\n"
        f"{run.date}, {machine}; load average during the run {_spread(run.load_averages)}; {run.generator}; "
        f"{', '.join(f'{k} {v}' for k, v in run.versions.items())}. "
        + ("" if run.isolated else "No network namespace could be made: no bytes on the wire. ")
        + f"Raw records: {records}.\n"
    )
    parts = [head, _limits(run), _bare(run), _speed(run), _protocol(run), _processes(run), _left_out(run)]
    return "\n".join(part for part in parts if part)


def _limits(run: ServingRun) -> str:
    rows = [[limit.what, limit.wanted, limit.measured, f"**{limit.verdict}**"] for limit in limits(run)]
    share = _share(run)
    said = f"The bare engine, which never waits for anything, got {share:.2f} of a core. " + (
        "So the machine was free, and times by the clock mean what they say."
        if share >= FREE
        else "So the machine was busy with other work: times by the clock, and ratios of them, tell as much of the "
        "scheduler as of the servers, in either direction. What holds on a busy machine too is processor time, "
        "hence the rows and columns of it."
    )
    for protocol in sorted({w.protocol for w in run.windows if w.server == SPLITVEIL}):
        at_32 = _ours(run, protocol, 32)
        if at_32:
            measured = f"{_median(map(_cpu_ratio, at_32)):.2f} ({_spread(map(_cpu_ratio, at_32))})"
            what = f"{protocol}: rows a second of processor time at concurrency 32 over bare at batch 32"
            rows.append([what, "", measured, "for comparison"])
    return _table("Limits", ["", "wanted", "measured", ""], rows, said)


def _bare(run: ServingRun) -> str:
    rows = []
    for batch in sorted({b.batch for b in run.bare}):
        those = [b for b in run.bare if b.batch == batch]
        rate, p50, cpu = ([getattr(b, key) for b in those] for key in ("rows_per_second", "p50_ms", "cpu_ms"))
        rows.append(
            [str(batch), f"{_median(rate):.0f} ({_spread(rate)})", f"{_median(p50):.2f}", f"{_median(cpu):.2f}"]
        )
    return _table("The limit: bare onnxruntime", ["batch", "rows/s", "p50 of a batch, ms", "CPU ms a row"], rows)


def _speed(run: ServingRun) -> str:
    rows = []
    for key, those in _grouped(run, "resnet18"):
        server, protocol, concurrency = key
        p50, p99, cpu = (_median(getattr(w, name) for w in those) for name in ("p50_ms", "p99_ms", "cpu_ms"))
        added = f"{_median(map(_added, those)):+.2f}" if concurrency == 1 else ""
        rows.append(
            [server, protocol, str(concurrency), f"{_median(w.rows_per_second for w in those):.0f}",
             f"{_median(map(_ratio, those)):.2f} ({_spread(map(_ratio, those))})", f"{p50:.1f}", f"{p99:.1f}",
             added, f"{cpu:.2f}", f"{_median(map(_cpu_ratio, those)):.2f}", _bytes(those),
             str(sum(w.failed for w in those))]
        )  # fmt: skip
    names = ["server", "protocol", "concurrency", "rows/s", "of bare at that batch", "p50 ms", "p99 ms",
             "added p50 ms", "CPU ms a request", "of bare in CPU", "bytes on the wire", "failed"]  # fmt: skip
    seen = {w.server for w in run.windows}
    said = " ".join(text for server, text in HOW.items() if server in seen)
    return _table("ResNet-18's half behind each server", names, rows, said)


def _protocol(run: ServingRun) -> str:
    rows = [
        [server, protocol, str(concurrency), f"{_median(w.rows_per_second for w in those):.0f}",
         f"{_median(w.p50_ms for w in those):.2f}", f"{_median(w.cpu_ms for w in those):.2f}", _bytes(those)]
        for (server, protocol, concurrency), those in _grouped(run, "no-op")
    ]  # fmt: skip
    names = ["server", "protocol", "concurrency", "requests/s", "p50 ms", "CPU ms a request", "bytes on the wire"]
    said = "A model that does next to nothing, for the cost of the protocols alone; also what h2load can ask at least."
    return _table("Protocols alone", names, rows, said)


def _processes(run: ServingRun) -> str:
    rows = []
    for p in run.processes:
        after = "" if p.pss_after_mb is None else f"{p.pss_after_mb:.0f} / {p.rss_after_mb:.0f}"
        start = f"{_median(p.start_seconds):.2f} ({_spread(p.start_seconds)})"
        rows.append(
            [p.server, p.version, p.model, start, f"{_median(p.start_cpu_seconds):.2f}", str(p.processes),
             f"{p.pss_mb:.0f} / {p.rss_mb:.0f}", after]
        )  # fmt: skip
    names = ["server", "version", "model", "start s", "of it CPU s", "processes", "PSS / RSS MB", "after the load"]
    return _table("Start and memory", names, rows)


def _left_out(run: ServingRun) -> str:
    if not run.left_out:
        return ""
    return "## Left out\n\n" + "".join(f"- {k}: {' '.join(v.split())}\n" for k, v in run.left_out.items())


def _grouped(run: ServingRun, model: str) -> Iterable[tuple[tuple[str, str, int], list[Window]]]:
    groups: dict[tuple[str, str, int], list[Window]] = {}
    for w in run.windows:
        if w.model == model:
            groups.setdefault((w.server, w.protocol, w.concurrency), []).append(w)
    order = {server: i for i, server in enumerate(dict.fromkeys(w.server for w in run.windows))}
    order[SPLITVEIL] = -1
    return sorted(groups.items(), key=lambda item: (order[item[0][0]], *item[0][1:]))


def _ours(run: ServingRun, protocol: str, concurrency: int) -> list[Window]:
    wanted = ("resnet18", SPLITVEIL, protocol, concurrency)
    return [w for w in run.windows if (w.model, w.server, w.protocol, w.concurrency) == wanted]


def _ratio(window: Window) -> float:
    assert window.bare_rows_per_second is not None
    return window.rows_per_second / window.bare_rows_per_second


def _within(wall: float, cpu: float, limit: float, free: bool) -> bool | None:
    if wall < limit:
        return True
    return False if free or cpu >= limit else None


def _cpu_ratio(window: Window) -> float:
    assert window.bare_cpu_ms is not None
    return window.bare_cpu_ms / window.cpu_ms


def _share(run: ServingRun) -> float:
    """Of one core that the bare engine, which never waits for anything, got."""
    return _median(b.cpu_ms * b.rows_per_second / 1000 for b in run.bare)


def _added(window: Window) -> float:
    assert window.bare_p50_ms is not None
    return window.p50_ms - window.bare_p50_ms


def _bytes(windows: list[Window]) -> str:
    seen = [w.wire_bytes for w in windows if w.wire_bytes is not None]
    return f"{_median(seen):,.0f}" if seen else ""


_median: Callable[[Iterable[float]], float] = statistics.median


def _spread(values: Iterable[float]) -> str:
    seen = list(values)
    return f"{min(seen):.2f} to {max(seen):.2f}" if max(seen) < 100 else f"{min(seen):.0f} to {max(seen):.0f}"


def _table(title: str, names: list[str], rows: list[list[str]], said: str = "") -> str:
    if not rows:
        return ""
    lines = [names, ["---"] * len(names), *rows]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"## {title}\n\n" + (f"{said}\n\n" if said else "") + text
