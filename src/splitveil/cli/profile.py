"""``splitveil profile``: what this machine makes of a bundle or an ONNX graph. Needs no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from splitveil.core.records.device import Device, NodeTime

MOST_NODES = 10


def run(
    target: Annotated[Path, typer.Argument(metavar="BUNDLE|FILE.onnx", help="A bundle's folder, or one graph.")],
    threads: Annotated[int, typer.Option(min=1, help="For one call.")] = 1,
    runs: Annotated[int, typer.Option(min=1, help="Timed calls of each graph, after 5 that do not count.")] = 50,
    batch: Annotated[int, typer.Option(min=1, help="Samples of one call.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DEVICE.json", help="Write the device, for `--device` elsewhere.")
    ] = None,
    name: Annotated[str, typer.Option(help="What to call this device.")] = "device",
    nodes: Annotated[bool, typer.Option("--nodes", help="Also the nodes that take longest.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Time a bundle's halves, or one graph, on this machine, and its speed on the reference graph."""
    from splitveil.cli.console import print_json
    from splitveil.cli.lines import Lines
    from splitveil.core.errors import InputError
    from splitveil.core.progress import reporting, task
    from splitveil.core.records import dumps
    from splitveil.device.profiling import by_node, measure_here, time_graph

    if not name.strip():
        raise InputError("expected a name for the device, got none; write for example --name pi5-kitchen.")
    graphs = _graphs(target)
    timings = []
    slowest: dict[str, list[NodeTime]] = {}
    # Lines, not bars: a bar redraws itself ten times a second, beside what is being timed.
    with reporting(Lines()):
        for graph, content in graphs:
            with task(f"timing {graph}", 1):
                timings.append(time_graph(content, threads=threads, runs=runs, batch=batch, name=graph))
        for graph, content in graphs if nodes else ():
            with task(f"nodes of {graph}", 1):
                slowest[graph] = by_node(content, threads=threads, runs=runs, batch=batch)
        with task("reference graph", 1):
            device = measure_here(threads, name=name.strip()).model_copy(update={"timings": timings})
    if out is not None:
        device.save(out)
    if json:
        print_json(dumps({"device": device, "nodes": slowest}))
        return
    _show(device)
    for graph, found in slowest.items():
        _show_nodes(graph, found)
    if out is not None:
        typer.echo(f"wrote {out}")


def _graphs(target: Path) -> list[tuple[str, bytes | Path]]:
    """The edge half first, so that its peak of memory holds nothing of the other graph's."""
    from splitveil.core.errors import InputError
    from splitveil.wire.bundle import CLOUD, EDGE, Bundle

    if target.is_dir():
        bundle = Bundle.load(target)
        return [
            (f"{bundle.manifest.name}/{half}", bundle.graph(half))
            for half in (EDGE, CLOUD)
            if half in bundle.manifest.files
        ]
    if not target.is_file():
        raise InputError(f"{target} is neither a bundle's folder nor a file; check the path.")
    return [(target.name, target)]


def _show(device: "Device") -> None:
    from splitveil.cli.console import out, show_table
    from splitveil.cli.cuts import count, size

    rows = [
        [
            t.graph,
            size(t.file_bytes),
            count(t.macs) if t.macs else "unknown",
            f"{1e3 * t.median:.3f}",
            f"{1e3 * t.p95:.3f}",
            count(t.macs * t.batch / t.median) if t.macs else "unknown",
        ]
        for t in device.timings
    ]
    show_table(
        f"{device.name}: {device.hardware}, {device.threads} thread(s)",
        ["graph", "file", "MACs", "median ms", "p95 ms", "MACs/s"],
        rows,
    )
    first = device.timings[0]
    peak = "unknown" if first.peak_rss_bytes is None else size(first.peak_rss_bytes)
    memory = "unknown" if device.memory_bytes is None else size(device.memory_bytes)
    storage = "unknown" if device.storage_bytes is None else size(device.storage_bytes)
    files = size(sum(t.file_bytes for t in device.timings))
    out.print(f"reference graph: {count(device.macs_per_second)} MACs/s")
    out.print(f"memory: this process held up to {peak} with {first.graph}, of {memory}")
    out.print(f"storage: {files} of graphs, {storage} free")


def _show_nodes(graph: str, found: "Sequence[NodeTime]") -> None:
    from splitveil.cli.console import out, show_table

    rows = [[n.name, n.op, f"{1e3 * n.seconds:.3f}", f"{n.share:.1%}"] for n in found[:MOST_NODES]]
    show_table(f"{graph}, node by node (as fused here)", ["node", "operator", "median ms", "share"], rows, left=2)
    if len(found) > MOST_NODES:
        rest = sum(n.share for n in found[MOST_NODES:])
        out.print(f"and {len(found) - MOST_NODES} more, {rest:.1%} together")
