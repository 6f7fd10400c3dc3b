"""Accuracy over time of the reference net beside ResNet-20, both from nothing; recipe options; SiftFunnel's gates.

    python -m benchmarks.training_speed --data npz:cifar10.npz [--seeds 0,1,2] [--threads 2] [--runs whitenet=whitenet]
    python -m benchmarks.training_speed --page

Every run is one `protect` of an undefended split, as ``splitveil fit`` does it: its loop, its recipe, whatever it does
between epochs. The clock stops while test images are asked for a curve; nothing is chosen by them. Writes
``docs/results/training-speed.md`` and its records into the archive; what is there is not run again, so that more seeds
are added by asking for them.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field

from benchmarks.net import load_net
from benchmarks.page import Page, parsed, parser, start
from splitveil.core.records import Document
from splitveil.core.records.base import Record
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses.base import Protected
from splitveil.lab.images import as_floats
from splitveil.lab.protection import accuracy_of, protect
from splitveil.lab.recipe import FRESH, Recipe, read_recipe
from splitveil.lab.seeds import fingerprint, hardware
from splitveil.lab.training import infer, native_precision

RUNS = ("whitenet=whitenet", "resnet20=usual:epochs=16")
"""Nets and recipes whose curves stand beside each other."""
CUTS = {"whitenet": "stage2", "resnet20": "layer2"}
"""Where a net is cut; an undefended split trains as the whole net does, wherever that is."""


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
    points: list[Point]
    losses: list[float]
    accuracy: float
    """At the end, in float32, codec included."""
    hardware: str
    versions: dict[str, str] = Field(default_factory=dict)


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
        model=model, recipe=repr(recipe), seed=seed, threads=torch.get_num_threads(), points=points,
        images=len(data.train) if recipe.keep == "last" else len(data.train) - len(data.train) // 10,
        losses=history.losses, accuracy=accuracy_of(protected, data, seed), hardware=hardware(), versions=fingerprint(),
    )  # fmt: skip


def main() -> None:
    """Run what is missing and write the page."""
    asked = parser(__doc__)
    asked.add_argument("--data")
    asked.add_argument("--runs", nargs="+", default=list(RUNS), help="NET=RECIPE each")
    asked.add_argument("--seeds", default="0")
    asked.add_argument("--threads", type=int)
    args = parsed(asked, "data")
    page = Page("training-speed", args.out)
    if not args.page:
        if args.threads:
            torch.set_num_threads(args.threads)
        data = load_data(args.data)
        for seed in map(int, args.seeds.split(",")):
            for run in args.runs:
                model, _, text = run.partition("=")
                recipe = read_recipe(text, epochs=None, lr=None, usual=Recipe(epochs=16, lr=FRESH))
                page.archive.kept(Curve, f"{run} seed {seed}", partial(curve, model, recipe, data, seed))


if __name__ == "__main__":
    start(main)
