"""One training from nothing, looked at after each epoch, for `benchmarks.training_speed`."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import safe_open

from benchmarks.net import load_net
from splitveil.core.records import Document
from splitveil.core.records.base import Record
from splitveil.lab.data import Dataset
from splitveil.lab.defenses.base import Protected
from splitveil.lab.images import as_floats
from splitveil.lab.protection import accuracy_of, protect
from splitveil.lab.recipe import Recipe
from splitveil.lab.seeds import fingerprint, hardware
from splitveil.lab.training import infer, native_precision

CUTS = {"whitenet": "stage2", "whitenet_wide": "stage2", "resnet20": "layer2"}
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
    """Processor and wall seconds since it was made, pauses left out.

    Args:
        gone: what went before a run was killed; None from the start.
    """

    def __init__(self, gone: Point | None = None) -> None:
        processor, wall = (gone.processor, gone.wall) if gone else (0.0, 0.0)
        self._start = (time.process_time() - processor, time.perf_counter() - wall)

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


class Points(Document):
    """Of a run under way."""

    kind: ClassVar[str] = "points"
    points: list[Point]


def epochs_of(checkpoint: Path) -> int:
    """Epochs that a checkpoint has behind it."""
    with safe_open(checkpoint, framework="pt") as file:
        return len(json.loads(file.metadata()["state"])["losses"])


def curve(model: str, recipe: Recipe, data: Dataset, seed: int, work: Path) -> Curve:
    """Train from nothing and look at the test images after each epoch. work: what a killed run goes on from."""
    kept, checkpoint = work / "points.json", work / "checkpoint.safetensors"
    points = Points.load(kept).points[: epochs_of(checkpoint)] if kept.exists() and checkpoint.exists() else []
    clock = Clock(points[-1] if points else None)
    x, y = torch.from_numpy(data.test.x), torch.from_numpy(data.test.y)

    def watch(protected: Protected) -> None:
        processor, wall = clock.read()
        with clock.paused():
            logits = infer(protected, (as_floats(part) for part in x.split(250)), native_precision())
            right = (logits.argmax(1) == y).float().mean().item()
        points.append(Point(processor=processor, wall=wall, accuracy=right))
        Points(points=points).save(kept)
        print(f"{model} {seed}: {len(points)} epochs, {processor:.0f} s of processors, {100 * right:.2f} %", flush=True)

    halves = load_net(model, data, None, seed).traced.split(CUTS[model])
    protected, history = protect(
        halves, "none", "raw", data, recipe=recipe, seed=seed, watch=watch, checkpoint=checkpoint, resume=True
    )
    return Curve(
        model=model, recipe=repr(recipe), seed=seed, threads=torch.get_num_threads(), points=points, tested=len(y),
        images=len(data.train) if recipe.keep == "last" else len(data.train) - len(data.train) // 10,
        losses=history.losses, accuracy=accuracy_of(protected, data, seed), hardware=hardware(), versions=fingerprint(),
    )  # fmt: skip
