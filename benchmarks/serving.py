"""The server beside bare onnxruntime and beside other servers: rows a second, latency, start, memory, bytes.

    python -m benchmarks.serving peers --install DIR            # environments of the other servers, 2 GB
    python -m benchmarks.serving run [--peers DIR] [--rounds 5] [--out docs/results]
    python -m benchmarks.serving page docs/results/serving.jsonl # the page again, from its archive

``run`` prints each limit with pass, fail or, on a busy machine, undecided, and writes ``serving.jsonl`` and
``serving.md``. Needs h2load (Debian's nghttp2-client). Where Linux allows it, everything runs in a network namespace of
its own.
"""

import argparse
import importlib.metadata
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.page import Page
from benchmarks.serving_speed import isolation, load, peers
from benchmarks.serving_speed.measuring import Findings, Measurement, Schedule, device_import
from benchmarks.serving_speed.page import limits, to_markdown
from benchmarks.serving_speed.records import ServingRun
from benchmarks.serving_speed.subject import FEATURES, bundle
from splitveil.core.errors import SplitVeilError

NAME = "serving"
WORK = Path("runs/bench-serving")
PACKAGES = ("onnxruntime", "numpy", "grpcio", "uvicorn", "starlette", "httptools", "protobuf")


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving")
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("peers", help="make the other servers' environments")
    made.add_argument("--install", type=Path, required=True, metavar="DIR")
    made.add_argument("--names", nargs="+", default=list(peers.PEERS))
    run = commands.add_parser("run", help="measure")
    run.add_argument("--peers", type=Path, metavar="DIR", help="of `peers --install`; without it ours alone")
    run.add_argument("--names", nargs="*", default=list(peers.PEERS), help="which of them")
    run.add_argument("--rounds", type=int, default=5)
    run.add_argument("--window", type=float, default=1.5, help="seconds")
    run.add_argument("--starts", type=int, default=5)
    run.add_argument("--work", type=Path, default=WORK, help="for bundles and logs")
    run.add_argument("--out", type=Path, default=WORK, help="for serving.jsonl and serving.md")
    again = commands.add_parser("page", help="write the page anew")
    again.add_argument("archive", type=Path)
    given = parser.parse_args(argv)
    try:
        if given.command == "peers":
            return _install(given.install, given.names)
        if given.command == "page":
            page = Page(given.archive.stem, given.archive.parent)
            page.write(to_markdown(page.records(ServingRun)[NAME], page.link))
            return 0
        return _run(given)
    except SplitVeilError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _install(folder: Path, names: list[str]) -> int:
    wrong = peers.install(folder, names)
    for name, why in wrong.items():
        print(f"{name} is left out: {why}", file=sys.stderr)
    return 1 if wrong else 0


def _run(given: argparse.Namespace) -> int:
    found_generator = load.generator()
    isolated = isolation.enter()
    if isolated:
        isolation.raise_loopback()
    work: Path = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    schedule = Schedule(rounds=given.rounds, window=given.window, starts=given.starts)
    found = Findings()
    imported = device_import(schedule.starts)
    where = given.peers.resolve() if given.peers else None
    for model, names in (("resnet18", given.names if where else []), ("no-op", [])):
        Measurement(bundle(work, model), model, schedule, isolated, work, _tell).run(where, names, found)
    record = ServingRun(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), hardware=_hardware(),
        versions={"Python": sys.version.split()[0]} | {p: importlib.metadata.version(p) for p in PACKAGES},
        generator=found_generator, isolated=isolated, feature_bytes=4 * FEATURES[0] * FEATURES[1] * FEATURES[2],
        rounds=schedule.rounds, window_seconds=schedule.window, warmup_seconds=schedule.warmup,
        load_averages=found.load_averages, windows=found.windows, bare=found.bare, processes=found.processes,
        device_import=imported, left_out=found.left_out,
    )  # fmt: skip
    page = Page(NAME, given.out)
    page.archive.put({NAME: record})
    page.write(to_markdown(record, page.link))
    met = limits(record)
    for limit in met:
        print(f"{limit.verdict}  {limit.what}: {limit.measured}, wanted {limit.wanted}")
    return 1 if any(limit.met is False for limit in met) else 0


def _hardware() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"processor": named[0] if named else "unknown processor", "cores": f"{os.cpu_count()} cores"}


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
