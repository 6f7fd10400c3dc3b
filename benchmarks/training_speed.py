"""Accuracy over time of the reference net beside ResNet-20, both from nothing; recipe options; SiftFunnel's gates.

    python -m benchmarks.training_speed --data npz:cifar10.npz [--seeds 0,1,2] [--threads 2] [--runs NET=RECIPE ...]
    python -m benchmarks.training_speed --page

Every run is one `protect` of an undefended split, as ``splitveil fit`` does it: its loop, its recipe, whatever it does
between epochs. The clock stops while test images are asked for a curve; nothing is chosen by them. Writes
``docs/results/training-speed.md`` and its records into the archive; what is there is not run again, so that more seeds
are added by asking for them, and ``--runs`` adds recipes to the table of options.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.over_seeds import plus_minus
from benchmarks.page import Page, parsed, parser, start
from benchmarks.training_curve import Curve, curve
from benchmarks.training_steps import Steps, gates, nets
from splitveil.core.records import Accuracy
from splitveil.lab.data import load_data
from splitveil.lab.recipe import FRESH, Recipe, read_recipe
from splitveil.lab.seeds import named

REFERENCE = ("whitenet=whitenet", "whitenet_wide=whitenet:epochs=8,weight_decay=0.04,smoothing=0.2")
"""The reference nets."""
RUNS = (*REFERENCE, "resnet20=usual:epochs=16", "resnet20=usual:epochs=8")
"""Nets and recipes whose curves stand beside each other."""
GIVEN, AIM, LEAST = 30, 0.93, 0.925
"""Minutes of processors, those of two cores in a quarter of an hour; what the reference net is to reach in them."""
MINUTES = (2.5, 5, 7.5, 10, 15, 20, 25, 30)
MARKS = (0.8, 0.85, 0.88, 0.9, 0.91, 0.92, 0.925, 0.93)


def percent(values: Sequence[float | None]) -> str:
    """Of several seeds."""
    return plus_minus([None if v is None else 100 * v for v in values])


def beside(curves: dict[str, list[Curve]]) -> list[str]:
    """Both nets over time."""
    there = {run: curves[run] for run in RUNS if run in curves}
    head = " | ".join(f"{run}, {len(some)} seed{'s' * (len(some) > 1)}" for run, some in there.items())
    lines = [f"| minutes of processors | {head} |", "|---|" + "---|" * len(there)]
    for minutes in MINUTES:
        told = (percent([c.after(minutes) for c in some]) for some in there.values())
        lines.append(f"| {minutes:g} | " + " | ".join(told) + " |")
    lines += ["", f"| test images right, first at | {head} |", "|---|" + "---|" * len(there)]
    for mark in MARKS:
        times = ([c.until(mark) for c in some] for some in there.values())
        told = ("not reached" if None in some else f"{plus_minus(some, '{:.1f}')} min" for some in times)
        lines.append(f"| {100 * mark:g} % | " + " | ".join(told) + " |")
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


def reached(run: str, curves: Sequence[Curve]) -> str:
    """What a reference net came to."""
    right, minutes = min(c.accuracy for c in curves), max(c.minutes for c in curves)
    goal = (
        "the aim"
        if right >= AIM
        else "the least that was asked for"
        if right >= LEAST
        else "**less than was asked for**"
    )
    words = goal if minutes <= GIVEN else f"**more than {GIVEN} minutes**"
    return (
        f"* {run.partition('=')[0]}: {percent([c.accuracy for c in curves])} % of the test images after "
        f"{plus_minus([c.minutes for c in curves], '{:.1f}')} minutes of processors: {words}."
    )


def text(page: Page) -> str:
    """The Markdown page."""
    curves: dict[str, list[Curve]] = {}
    for name, found in page.records(Curve).items():
        curves.setdefault(name.rpartition(" seed ")[0], []).append(found)
    steps = page.records(Steps)
    every = [c for some in curves.values() for c in some]
    lines = [
        "# Training speed", "",
        "Made by `python -m benchmarks.training_speed`. CIFAR-10 from nothing through `protect`, which is what "
        "`splitveil fit` runs; one view of each test image. Records: " + page.link + ".", "",
        f"Hardware: {'; '.join(sorted({c.hardware for c in every}))}. torch "
        f"{', '.join(sorted({c.versions['torch'] for c in every}))}.", "",
        "**Time is processor time**, summed over threads, since the machine was shared while this ran: the wall's is "
        f"beside it and says how much. A quarter of an hour of two cores is {GIVEN} minutes of processors. What two "
        "threads lose to each other is in it only where a run had two; the wall's also counts pauses of a run.", "",
        f"A reference net is to answer {100 * LEAST:g} % of the test images in that time, {100 * AIM:g} % if it can:",
        "", *(reached(run, curves[run]) for run in REFERENCE if run in curves), "",
        "## Accuracy over time", "",
        "After the last epoch that ended by then, at a rate that still falls: a curve's middle is not what a shorter "
        "training would end at. Whitenet's are of averaged weights. ResNet-20's recipe is what is usual here; it sets "
        "a tenth of the training images aside and chooses its epoch by them. A run that has ended keeps its last "
        "value; one of more epochs may end higher.", "",
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
    asked.add_argument("--runs", nargs="+", default=list(RUNS[:3]), help="NET=RECIPE each")
    asked.add_argument("--seeds", default="0,1,2")
    asked.add_argument("--threads", type=int, help="of torch; its own default without")
    asked.add_argument("--work", type=Path, default=Path("training-speed.work"), help="of runs that are under way")
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
                name = f"{run} seed {seed}"
                page.archive.kept(Curve, name, partial(curve, model, read, data, seed, args.work / named(name)))
    page.publish(text(page))


if __name__ == "__main__":
    start(main)
