"""Accuracy over time of the reference net beside ResNet-20, both from nothing; recipe options; SiftFunnel's gates.

    python -m benchmarks.training_speed --data npz:cifar10.npz [--seeds 0,1,2] [--threads 2] [--runs NET=RECIPE ...]
    python -m benchmarks.training_speed --page

Every run is one `protect` of an undefended split, as ``splitveil fit`` does it: its loop, its recipe, whatever it does
between epochs. The clock stops while test images are asked for a curve; nothing is chosen by them. Writes
``docs/results/training-speed.md`` and its records into the archive; what is there is not run again, so that more seeds
are added by asking for them, and ``--runs`` adds recipes to the table of options.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import ClassVar

import torch

from benchmarks.net import load_net
from benchmarks.over_seeds import plus_minus
from benchmarks.page import Page, parsed, parser, start
from benchmarks.training_steps import Steps, gates, nets
from splitveil.core.records import Accuracy, Document
from splitveil.core.records.base import Record
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses.base import Protected
from splitveil.lab.images import as_floats
from splitveil.lab.protection import accuracy_of, protect
from splitveil.lab.recipe import FRESH, Recipe, read_recipe
from splitveil.lab.seeds import fingerprint, hardware
from splitveil.lab.training import infer, native_precision
from splitveil.report.words import NONE

RUNS = ("whitenet=whitenet", "resnet20=usual:epochs=16")
"""Nets and recipes whose curves stand beside each other; the first is the reference net by its own."""
CUTS = {"whitenet": "stage2", "resnet20": "layer2"}
"""Where a net is cut; an undefended split trains as the whole net does, wherever that is."""
GIVEN, AIM, LEAST = 30, 0.93, 0.925
"""Minutes of processors, those of two cores in a quarter of an hour; what the reference net is to reach in them."""
MINUTES = (2.5, 5, 7.5, 10, 15, 20, 25, 30)
MARKS = (0.8, 0.85, 0.88, 0.9, 0.91, 0.92, 0.925, 0.93)


class Point(Record):
    """After an epoch. Seconds since the start, of all threads and on the wall, the asking of test images left out."""

    processor: float
    wall: float
    accuracy: float


class Curve(Document):
    """One training from nothing. Accuracies are of the test images, in the precision of training but for the last."""

    kind: ClassVar[str] = "curve"
    model: str
    recipe: str
    seed: int
    threads: int
    images: int
    """Trained on in an epoch."""
    tested: int
    """Test images."""
    points: list[Point]
    losses: list[float]
    accuracy: float
    """At the end, in float32."""
    hardware: str
    versions: dict[str, str]

    @property
    def minutes(self) -> float:
        """Of processors, for all of it."""
        return self.points[-1].processor / 60

    @property
    def speed(self) -> float:
        """Images a second of one processor, everything between epochs included."""
        return self.images * len(self.points) / self.points[-1].processor

    def after(self, minutes: float) -> float | None:
        """Accuracy of the last epoch that ended within so many minutes; None before the first."""
        return next((p.accuracy for p in reversed(self.points) if p.processor <= 60 * minutes), None)

    def until(self, accuracy: float) -> float | None:
        """Minutes to the first epoch as accurate as that; None where there is none."""
        return next((p.processor / 60 for p in self.points if p.accuracy >= accuracy), None)


class Clock:
    """Processor and wall seconds since it was made, pauses left out."""

    def __init__(self) -> None:
        self._start = (time.process_time(), time.perf_counter())

    def read(self) -> tuple[float, float]:
        """Of all threads, and on the wall."""
        return time.process_time() - self._start[0], time.perf_counter() - self._start[1]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens in the context takes no time."""
        before = self.read()
        yield
        after = self.read()
        self._start = (self._start[0] + after[0] - before[0], self._start[1] + after[1] - before[1])


def curve(model: str, recipe: Recipe, data: Dataset, seed: int) -> Curve:
    """Train from nothing and look at the test images after each epoch."""
    clock, points = Clock(), list[Point]()
    x, y = torch.from_numpy(data.test.x), torch.from_numpy(data.test.y)

    def watch(protected: Protected) -> None:
        processor, wall = clock.read()
        with clock.paused():
            logits = infer(protected, (as_floats(part) for part in x.split(250)), native_precision())
            right = (logits.argmax(1) == y).float().mean().item()
        points.append(Point(processor=processor, wall=wall, accuracy=right))
        print(f"{model} {seed}: {len(points)} epochs, {processor:.0f} s of processors, {100 * right:.2f} %", flush=True)

    halves = load_net(model, data, None, seed).traced.split(CUTS[model])
    protected, history = protect(halves, "none", "raw", data, recipe=recipe, seed=seed, watch=watch)
    return Curve(
        model=model, recipe=repr(recipe), seed=seed, threads=torch.get_num_threads(), points=points, tested=len(y),
        images=len(data.train) if recipe.keep == "last" else len(data.train) - len(data.train) // 10,
        losses=history.losses, accuracy=accuracy_of(protected, data, seed), hardware=hardware(), versions=fingerprint(),
    )  # fmt: skip


def percent(values: Sequence[float | None]) -> str:
    """Of several seeds."""
    return plus_minus([None if v is None else 100 * v for v in values])


def beside(curves: dict[str, list[Curve]]) -> list[str]:
    """Both nets over time."""
    there = {run: curves[run] for run in RUNS if run in curves}
    head = " | ".join(
        f"{run.partition('=')[0]}, {len(some)} seed{'s' * (len(some) > 1)}" for run, some in there.items()
    )
    lines = [f"| minutes of processors | {head} |", "|---|" + "---|" * len(there)]
    for minutes in MINUTES:
        told = (percent([c.after(minutes) for c in some]) for some in there.values())
        lines.append(f"| {minutes:g} | " + " | ".join(told) + " |")
    lines += ["", f"| test images right, first at | {head} |", "|---|" + "---|" * len(there)]
    for mark in MARKS:
        told = (plus_minus([c.until(mark) for c in some], "{:.1f}") for some in there.values())
        shown = (f"{minutes} min" if minutes != NONE else "not reached" for minutes in told)
        lines.append(f"| {100 * mark:g} % | " + " | ".join(shown) + " |")
    return lines


def ends(curves: dict[str, list[Curve]]) -> list[str]:
    """Every recipe that was run."""
    lines = [
        "| net = recipe | seeds | threads | epochs | test images right, % | minutes of processors | on the wall "
        "| images a second of one processor |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run, some in curves.items():
        right = percent([c.accuracy for c in some])
        if len(some) == 1:
            right = str(Accuracy.of(round(some[0].accuracy * some[0].tested), some[0].tested))
        lines.append(
            f"| {run} | {', '.join(str(c.seed) for c in some)} | {', '.join(sorted({str(c.threads) for c in some}))} | "
            f"{len(some[0].points)} | {right} | {plus_minus([c.minutes for c in some], '{:.1f}')} | "
            f"{plus_minus([c.points[-1].wall / 60 for c in some], '{:.1f}')} | "
            f"{plus_minus([c.speed for c in some], '{:.0f}')} |"
        )
    return lines


def taken(found: Steps) -> list[str]:
    """Ways to take a step."""
    lines = [
        "| step | images a second of one processor | times the first [quartiles] | weights apart after two steps |",
        "|---|---|---|---|",
    ]
    for way in found.ways:
        middle, low, high = way.factor
        apart = "" if way.apart is None else "bit-equal" if not way.apart else f"{way.apart:.1g}"
        lines.append(f"| {way.name} | {way.images:.0f} | {middle:.2f} [{low:.2f}, {high:.2f}] | {apart} |")
    return lines


def text(page: Page) -> str:
    """The Markdown page."""
    curves: dict[str, list[Curve]] = {}
    for name, found in page.records(Curve).items():
        curves.setdefault(name.rpartition(" seed ")[0], []).append(found)
    steps = page.records(Steps)
    own = curves[RUNS[0]]
    within = [c.accuracy for c in own if c.minutes <= GIVEN]
    reached = "not within it" if not within else f"{percent(within)} % of the test images"
    goal = min(within, default=0.0)
    verdict = "the aim" if goal >= AIM else "the least" if goal >= LEAST else "less than the least"
    lines = [
        "# Training speed", "",
        "Made by `python -m benchmarks.training_speed`. CIFAR-10 from nothing through `protect`, which is what "
        "`splitveil fit` runs; one view of each test image. Records: " + page.link + ".", "",
        f"Hardware: {'; '.join(sorted({c.hardware for some in curves.values() for c in some}))}. torch "
        f"{own[0].versions['torch']}.", "",
        "**Time is processor time**, summed over threads, since the machine was shared while this ran: the wall's is "
        f"beside it and says how much. A quarter of an hour of two cores is {GIVEN} minutes of processors. What two "
        "threads lose to each other on a quiet machine is in it only where a run had two.", "",
        f"**Whitenet reaches {reached}** in {plus_minus([c.minutes for c in own], '{:.1f}')} minutes of processors: "
        f"{verdict} of {100 * LEAST:g} % and {100 * AIM:g} %. Seeds: {', '.join(str(c.seed) for c in own)}.", "",
        "## Accuracy over time", "",
        "After the last epoch that ended by then, at a rate that still falls: a curve's middle is not what a shorter "
        "training would end at. Whitenet's are of averaged weights. ResNet-20's recipe is what is usual here; it sets "
        "a tenth of the training images aside and chooses its epoch by them.", "",
        *beside(curves), "", "## Every recipe that was run", "",
        "A single seed's accuracy has its 95 % interval over the test images, several have one over seeds.", "",
        *ends(curves), "", "## A step", "",
        f"Medians of {steps['nets'].turns} turns, taken in turn; the factor is that of each turn.", "",
        *taken(steps["nets"]), "", "## SiftFunnel's gates", "",
        f"A step of ResNet-20 with `siftfunnel` at layer2; both nets answer the same to {steps['gates'].apart:.0e} of "
        "the largest logit in float32. In bf16 products round in another order, so that trainings of `siftfunnel` from "
        "before and after agree as far as rounding does.", "",
        *taken(steps["gates"]), "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and write the page."""
    asked = parser(__doc__)
    asked.add_argument("--data")
    asked.add_argument("--runs", nargs="+", default=list(RUNS), help="NET=RECIPE each")
    asked.add_argument("--seeds", default="0,1,2")
    asked.add_argument("--threads", type=int, help="of torch; its own default without")
    args = parsed(asked, "data")
    page = Page("training-speed", args.out)
    if not args.page:
        if args.threads:
            torch.set_num_threads(args.threads)
        data = load_data(args.data)
        page.archive.kept(Steps, "gates", partial(gates, data))
        page.archive.kept(Steps, "nets", partial(nets, data))
        for seed in map(int, args.seeds.split(",")):
            for run in args.runs:
                model, _, recipe = run.partition("=")
                read = read_recipe(recipe, epochs=None, lr=None, usual=Recipe(epochs=16, lr=FRESH))
                page.archive.kept(Curve, f"{run} seed {seed}", partial(curve, model, read, data, seed))
    page.publish(text(page))


if __name__ == "__main__":
    start(main)
