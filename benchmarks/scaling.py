"""How much faster work gets with workers, and whether its records stay the same: ResNet-20 on part of CIFAR-10.

    python -m benchmarks.scaling --data npz:cifar10.npz [--weights resnet20.safetensors] [--tasks compare audit plan]
    python -m benchmarks.scaling --page

Each run is a process of its own on the same small task: one worker of one thread, two of one thread, one process with
all cores. Processor time is of all its processes: where others share the machine, it tells more than the clock.
Writes ``docs/results/scaling.md`` and its records into the archive; ``--workers 1x1 2x1 1x2 rayx1`` chooses the runs.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from benchmarks.net import load_net
from benchmarks.page import Page, parsed, parser, start
from splitveil.core.records import Budget, Comparison, Trial
from splitveil.core.records.base import Document
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.comparing import compare
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.jobs import Job, Workers
from splitveil.lab.planning import plan
from splitveil.lab.seeds import fingerprint, hardware
from splitveil.lab.store import Facts, Store

MODEL, AT, CUTS = "resnet20", "layer1", ("layer1", "layer2", "layer3")
ATTACKS = ("decoder:size=tiny,epochs=1,steps=40",)
DEFENSES = ("noise", "siftfunnel", "nopeek")
FORMS = ("1x1", "2x1", "1x2")
TIMES = ("seconds", "epoch_ratio", "hardware", "versions", "notes")
TRIVIAL, FAR = 40, 64


class Run(Document):
    """One task done in one way."""

    kind: ClassVar[str] = "scaling"

    task: str
    workers: str
    threads: int
    seconds: float
    processor: float = Field(description="seconds of all processes, those of the workers too")
    longest: float = Field(default=0.0, description="seconds of the longest chain of jobs; 0: not known")
    jobs: int = Field(description="trainings and attacks, or whatever the task consists of")
    records: str = Field(description="hash of all that was found, without times")
    busy: float = Field(description="processes that wanted a core before it began, mean of a minute")
    words: str
    hardware: str
    versions: dict[str, str]


def main() -> int:
    """Measure, then the page."""
    asked = parser(__doc__)
    asked.add_argument("--data")
    asked.add_argument("--weights", type=Path)
    asked.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    asked.add_argument("--workers", nargs="+", default=list(FORMS), help="workers x threads of each")
    asked.add_argument("--train", type=int, default=2000, help="training images")
    asked.add_argument("--epochs", type=int, default=2, help="of each training")
    asked.add_argument("--one", help="used by the command itself: one run, told as JSON")
    args = parsed(asked, "data")
    if args.one:
        print(measured(args, *args.one.split()).to_json(), flush=True)
        return 0
    page = Page("scaling", args.out)
    if not args.page:
        for task in args.tasks:
            for form in args.workers:
                page.archive.put({f"{task} {form}": _elsewhere(task, form)})
        page.archive.put({"two workers": overhead()})
    page.publish(text(page))
    return 0


def _elsewhere(task: str, form: str) -> Run:
    own = [sys.executable, "-m", "benchmarks.scaling", *sys.argv[1:], "--one", f"{task} {form}"]
    told = subprocess.run(own, stdout=subprocess.PIPE, check=True)
    return Run.from_json(told.stdout, f"the run of {task} with {form}")


class Overhead(Document):
    """What a job costs that does nothing."""

    kind: ClassVar[str] = "overhead"

    begin: float = Field(description="seconds until the first two workers have done one")
    each: float = Field(description="seconds a job, of many in two workers, kept in a store on this machine")
    hardware: str


@dataclass(frozen=True)
class Nothing(Facts):
    """The facts of a job that does nothing."""

    number: int


def idle(_: Path | None) -> tuple[str, dict[str, Any]]:
    """Do nothing."""
    return "{}", {}


def overhead() -> Overhead:
    """Measured with two processes."""
    with tempfile.TemporaryDirectory() as folder, Workers.of(2, 1) as workers:
        store, begun = Store(folder), time.perf_counter()
        workers.run([Job(facts=Nothing(-i), call=idle) for i in (1, 2)], store)
        started = time.perf_counter()
        workers.run([Job(facts=Nothing(i), call=idle) for i in range(TRIVIAL)], store)
        each = (time.perf_counter() - started) / TRIVIAL
    return Overhead(begin=round(started - begun, 3), each=round(each, 5), hardware=hardware())


def measured(args: argparse.Namespace, task: str, form: str) -> Run:
    """One task in this process, with the workers of `form`: their number, ``x`` and the threads of each."""
    workers, _, threads = form.partition("x")
    whole = load_data(f"{args.data}?n={args.train}")
    data = Dataset(whole.name, whole.train, whole.test.take(np.arange(min(500, len(whole.test)))), whole.classes)
    busy, begun = os.getloadavg()[0], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        longest = TASKS[task](
            data, args.weights, out, {"workers": workers, "threads": int(threads), "epochs": args.epochs}
        )
        seconds = time.perf_counter() - begun
        found = {p.relative_to(out).as_posix(): json.loads(p.read_text()) for p in out.rglob("*.json")}
        jobs = len([*out.rglob("*.safetensors")])
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    told = json.dumps(_timeless({k: v for k, v in found.items() if Path(k).name != "run.json"}), sort_keys=True)
    return Run(
        task=task, workers=workers, threads=int(threads), seconds=round(seconds, 2),
        processor=round(sum(u.ru_utime + u.ru_stime for u in used), 2), longest=round(longest, 2), jobs=jobs,
        records=hashlib.blake2b(told.encode(), digest_size=8).hexdigest(), busy=round(busy, 2),
        words=f"{MODEL}, {len(data.train):,} training and {len(data.test):,} test images, {args.epochs} epochs",
        hardware=hardware(), versions=fingerprint(),
    )  # fmt: skip


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in TIMES}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def _compare(data: Dataset, weights: Path | None, out: Path, who: dict[str, Any]) -> float:
    found = compare(
        lambda seed: load_net(MODEL, data, weights, seed).traced.split(AT), data, model=MODEL, weights=f"{weights}",
        defenses=DEFENSES, out=out, drops=(10.0,), suite=custom_suite(list(ATTACKS)), n=50, aux_n=500, seeds=(0, 1),
        trials=2, **who,
    )  # fmt: skip
    return longest_chain(found)


def longest_chain(found: Comparison) -> float:
    """Seconds of trainings that wait for one another: the undefended one, a defence's tuning, the other seeds'."""
    plain = _seconds(found.undefended.tried)
    return plain + max((_seconds(c.tried) + plain for c in found.contenders[1:]), default=0.0)


def _seconds(trials: Sequence[Trial]) -> float:
    return sum(t.seconds for t in trials)


def _audit(data: Dataset, weights: Path | None, out: Path, who: dict[str, Any]) -> float:
    net = load_net(MODEL, data, weights)
    subject = Subject.of_model(net.traced, list(CUTS), model=MODEL, weights=net.weights)
    del who["epochs"]  # nothing is trained
    audit(subject, data, suite=custom_suite(list(ATTACKS)), n=50, aux_n=500, out=out, **who)
    return 0.0


def _plan(data: Dataset, weights: Path | None, out: Path, who: dict[str, Any]) -> float:
    net = load_net(MODEL, data, weights)
    quick = custom_suite(list(ATTACKS))
    plan(
        net.traced, data, model=MODEL, weights=net.weights, budget=Budget(leakage={"ssim": 0.9}), out=out,
        cuts=list(CUTS), defenses=["none", "noise", "siftfunnel"], levels=(0.25, 0.5, 0.75), suite=quick, quick=quick,
        n=50, audits=8, curve_n=0, **who,
    )  # fmt: skip
    return 0.0


TASKS: dict[str, Callable[[Dataset, Path | None, Path, dict[str, Any]], float]] = {
    "compare": _compare, "audit": _audit, "plan": _plan
}  # fmt: skip


def text(page: Page) -> str:
    """The page, from its archive."""
    runs, idle_job = page.records(Run), page.archive.find(Overhead, "two workers")
    first = next(iter(runs.values()))
    parts = [
        "# Workers: how much faster, with the same records",
        "Made by `python -m benchmarks.scaling --data npz:cifar10.npz --weights resnet20.safetensors`; records: "
        f"{page.link}. {first.words}; {first.hardware}; torch {first.versions['torch']}. `compare`: three defences "
        f"({', '.join(DEFENSES)}), two seeds, one budget; `audit`: three cuts; `plan`: three cuts, three families, "
        "eight choices measured. A run is a process of its own, started cold: tracing and the workers' start are in "
        "its time. One run each: where the load was well above zero others had the cores too, the clock tells "
        "little, and processor seconds are the figure to read.",
        *(_table(task, [r for r in runs.values() if r.task == task]) for task in TASKS),
    ]
    if idle_job is not None:
        parts.append(_far([r for r in runs.values() if (r.workers, r.threads) == ("1", 1)], idle_job))
    return "\n\n".join(p for p in parts if p) + "\n"


def _table(task: str, runs: Sequence[Run]) -> str:
    if not runs:
        return f"## {task}\n\nNot measured yet."
    base = next((r for r in runs if (r.workers, r.threads) == ("1", 1)), runs[0])
    lines = [
        f"## {task}", "",
        "| workers x threads | seconds | of 1 x 1 | processor seconds | of 1 x 1 | records as 1 x 1 | load before |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in runs:
        same = "the same" if r.records == base.records else "others"
        same = same if r.threads == base.threads else "(other threads)"
        lines.append(
            f"| {r.workers} x {r.threads} | {r.seconds:.1f} | {r.seconds / base.seconds:.2f} | {r.processor:.1f} | "
            f"{r.processor / base.processor:.2f} | {same} | {r.busy:.1f} |"
        )
    return "\n".join(lines)


def _far(alone: Sequence[Run], idle_job: Overhead) -> str:
    """What to expect of many workers: work shared out, but no less than the longest chain, and what a job costs."""
    lines = [
        f"## {FAR} workers, projected", "",
        f"Measured: {idle_job.each * 1000:.1f} ms a job that does nothing (sent, claimed, kept), one driver for all; "
        f"{idle_job.begin:.1f} s until the first two workers have done one. Projected: the larger of the work shared "
        "out and of the longest chain of trainings that wait for one another, with these added; nothing else is known.",
        "",
        f"| task | 1 x 1, s | longest chain, s | jobs | {FAR} workers, s | times |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in alone:
        if r.longest:
            far = max(r.processor / FAR, r.longest) + r.jobs * idle_job.each + idle_job.begin
            lines.append(
                f"| {r.task} | {r.processor:.1f} | {r.longest:.1f} | {r.jobs} | {far:.1f} | {r.processor / far:.1f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    start(main)
