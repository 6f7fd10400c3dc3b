"""Trainings and attacks on a GPU beside the same on the processors of that machine; under ten minutes, offline.

    make bench-gpu
    python -m benchmarks.gpu [--accelerator cuda] [--data vehicles?size=32&n=2000] [--minutes 9]
    python -m benchmarks.gpu --page

A ResNet-20 is trained, then with each defence of the table for an epoch a stage, then every attack of the table is run
once: first all of it on the GPU, then on the processors as far as the minutes reach. The numbers that they reach stand
beside the seconds, for a fast attack that finds nothing is no attack. Writes ``docs/results/gpu.md`` and its archive.
Seconds are of one run each, so that they tell factors and not percents; the first of a kind on a GPU holds its warm-up.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar

import torch

from benchmarks.net import load_net
from benchmarks.page import Page, parsed, parser, start
from splitveil.core.errors import SplitVeilError
from splitveil.core.records import Document, Role
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.protection import accuracy_of, protect
from splitveil.lab.seeds import fingerprint, hardware
from splitveil.lab.training import native_precision

NAME, MODEL, CUT, DATA = "gpu", "resnet20", "layer1", "vehicles?size=32&n=2000&identities=20"
EPOCHS, PRIVATE, AUX = 6, 128, 600
DECODER = "decoder:size=small,epochs=4,steps=300"
OPTIONS = {
    "decoder": "size=small,epochs=4,steps=300",
    "mle": f"steps=150,start=[{DECODER}]",
    "shadow": "steps=300",
    "deep_prior": "steps=150",
    "glass": f"decoder=[{DECODER}],steps=300,epochs=2,starts=2,rough=20,fine=40,free=40",
    "flow": f"decoder=[{DECODER}],epochs=4,steps=300,draws=2",
    "positions": "size=small,epochs=2,steps=200",
    "repeat": f"attack=[{DECODER}],k=4",
}
"""Shorter than usual; an attack that is not here runs as it is by default."""


class Timed(Document):
    """One training or attack on one device."""

    kind: ClassVar[str] = "timed"
    what: str
    device: str
    seconds: float
    reached: float
    """Test accuracy of a training, PSNR in dB of an attack on images, accuracy of one on labels."""
    unit: str
    precision: str
    hardware: str
    threads: int
    versions: dict[str, str]


def timed(what: str, unit: str, run: Callable[[], tuple[float, float]]) -> Timed:
    """run: gives what was reached and, where it knows them better, the seconds; else 0."""
    used, begun = Accelerator.chosen(), time.perf_counter()
    reached, seconds = run()
    return Timed(
        what=what, device=str(used.device), seconds=seconds or time.perf_counter() - begun, reached=reached, unit=unit,
        precision=native_precision(), hardware=hardware(), threads=torch.get_num_threads(), versions=fingerprint(),
    )  # fmt: skip


def trainings(data: Dataset) -> Iterator[tuple[str, Callable[[], Timed]]]:
    """One of `EPOCHS` without a defence, then one of every defence, an epoch a stage. The last gives its accuracy."""

    def trained(name: str) -> Timed:
        epochs = EPOCHS if name == "none" else len(DEFENSES.build(name).stages())
        split = load_net(MODEL, data, None).traced.split(CUT)

        def run() -> tuple[float, float]:
            return accuracy_of(protect(split, name, "raw", data, epochs=epochs)[0], data), 0.0

        return timed(f"train {name}", "accuracy", run)

    for name in DEFENSES.names():
        yield f"train {name}", partial(trained, name)


def attacks(data: Dataset, private: int) -> Iterator[tuple[str, Callable[[], Timed]]]:
    """Each attack of the table on an undefended split with weights drawn by a seed, the same on every device."""
    subject = Subject.of_model(load_net(MODEL, data, None).traced, [CUT], model=MODEL, weights="drawn")

    def attacked(name: str) -> tuple[float, float]:
        spec = f"{name}:{OPTIONS[name]}" if name in OPTIONS else name
        card = audit(subject, data, suite=custom_suite([spec]), n=private, aux_n=AUX, samples=0).card
        rows = [r for r in card.rows if r.attack == name and r.role is not Role.WORST]
        if rows:
            return rows[0].psnr, rows[0].seconds
        return card.inferences[0].accuracy, card.inferences[0].seconds

    for name in ATTACKS.names():
        unit = "accuracy" if name in ("attribute", "completion") else "dB"
        yield f"attack {name}", partial(timed, f"attack {name}", unit, partial(attacked, name))


def measure(page: Page, data: Dataset, devices: list[Accelerator], minutes: float, private: int = PRIVATE) -> None:
    """All of it on each device in turn, until the time is over; every record is kept as it comes."""
    end = time.monotonic() + 60 * minutes
    for where in devices:
        with where.used():
            for name, run in (*trainings(data), *attacks(data, private)):
                if time.monotonic() > end:
                    return
                try:
                    found = run()
                except SplitVeilError as error:
                    print(f"{where.device} {name}: {error}", flush=True)
                    continue
                page.archive.put({f"{where.device.type} {name}": found})
                print(f"{where.device} {name}: {found.seconds:.2f} s, {found.reached:.3f} {found.unit}", flush=True)


def text(page: Page, data: str) -> str:
    """The page, from its records."""
    records = page.records(Timed)
    on: dict[str, dict[str, Timed]] = {}
    for record in records.values():
        on.setdefault(record.what, {})["cpu" if record.device == "cpu" else "gpu"] = record
    machines = list(
        dict.fromkeys(f"{r.device}: {r.hardware}, {r.threads} threads, {r.precision}" for r in records.values())
    )
    first = next(iter(records.values()))
    lines = [
        "# On a GPU", "",
        f"{MODEL} on `{data}`, cut at {CUT}; `make bench-gpu`, records in {page.link}. A training is `protect` whole, "
        f"{EPOCHS} epochs without a defence and one a stage with one; an attack is on {PRIVATE} images and on drawn "
        "weights. Seconds of one run each. Blank: not measured, for the minutes were over.", "",
        *(f"* {machine}" for machine in machines),
        f"* torch {first.versions.get('torch', '')}, code {first.versions.get('code', '')}", "",
        "| | GPU, s | processors, s | times faster | reached on the GPU | on the processors | |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for what, by in on.items():
        gpu, cpu = by.get("gpu"), by.get("cpu")
        factor = f"{cpu.seconds / gpu.seconds:.1f}" if gpu and cpu and gpu.seconds else ""
        cells = [f"{r.seconds:.2f}" if r else "" for r in (gpu, cpu)]
        reached = [f"{r.reached:.3f}" if r else "" for r in (gpu, cpu)]
        lines.append(f"| {what} | {' | '.join([*cells, factor, *reached, next(iter(by.values())).unit])} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and write the page; without a GPU one sentence."""
    asked = parser(__doc__)
    asked.add_argument("--accelerator", default="cuda", help="cuda, cuda:1 or mps")
    asked.add_argument("--data", default=DATA)
    asked.add_argument("--minutes", type=float, default=9.0, help="in all")
    given = parsed(asked)
    page = Page(NAME, given.out)
    if not given.page:
        gpu = Accelerator.chosen(given.accelerator)
        measure(page, load_data(given.data), [gpu, Accelerator.chosen("cpu")], given.minutes)
    page.publish(text(page, given.data))
    return 0


if __name__ == "__main__":
    start(main)
