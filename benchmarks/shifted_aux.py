"""What a mismatch of the adversary's images costs it: ResNet-20 on CIFAR-10, attacked with other people's pictures.

    python -m benchmarks.shifted_aux --weights cifar10_resnet20.safetensors --data npz:cifar10.npz
        --cifar100 npz:cifar100_subset.npz --cars npz:cars64.npz [--seeds 0]
    python -m benchmarks.shifted_aux --page

Every set is cut to the same number of images, that of the smallest, so that only their kind differs; a last line shows
what a full set of the same distribution gives. Writes ``docs/results/shifted-aux.md`` and its cards into the archive;
what is there already is not run again.
"""

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.net import load_net
from benchmarks.over_seeds import plus_minus
from benchmarks.page import Page, parsed, parser, start
from splitveil.cli.console import showing_progress
from splitveil.core.records import Card, Row
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.data import Dataset, Images, load_data

MODEL, CUTS, PRIVATE = "resnet20", ("layer1", "layer2", "layer3"), 100
DECODER = "decoder:size=small,epochs=6,steps=600"
ATTACKS = ["linear", DECODER, f"mle:steps=150,start=[{DECODER}]"]
SHOWN = ("mean", "nearest", "linear", "decoder", "mle", "worst_case:psnr")
SETS = {
    "same": "CIFAR-10 test images, same distribution",
    "cifar100": "CIFAR-100 subset, other classes",
    "cars": "cars, one other class, resized",
    "noise": "random pixels",
    "cifar100-full": "CIFAR-100 subset, all",
    "same-full": "CIFAR-10 test images, same distribution",
}
"""The adversary's images."""
FULL = 6000
"""Of those that are not cut to the smallest set."""


def noise(data: Dataset, count: int, seed: int) -> Dataset:
    """Random pixels."""
    drawn = np.random.default_rng([seed, 11]).integers(0, 256, (count, *data.shape), dtype=np.uint8)
    images = Images(drawn, np.zeros(count, dtype=np.int64))
    return Dataset("random pixels", images, images.take(np.arange(1)), ("noise",))


def audited(data: Dataset, aux: Dataset | None, most: int, seed: int, weights: Path) -> Card:
    """One audit."""
    net = load_net(MODEL, data, weights)
    subject = Subject.of_model(net.traced, CUTS, model=MODEL, weights=net.weights)
    with tempfile.TemporaryDirectory() as folder:
        return audit(
            subject, data, aux=aux, aux_n=most, suite=custom_suite(ATTACKS), n=PRIVATE, seed=seed, samples=0,
            out=Path(folder),
        ).card  # fmt: skip


def measure(page: Page, args: argparse.Namespace) -> None:
    """Run the audits that the archive does not hold."""
    data, cifar100, cars = (load_data(spec) for spec in (args.data, args.cifar100, args.cars))
    few = len(cars.train) + len(cars.test)
    others = {"cifar100": cifar100, "cars": cars, "noise": noise(data, few, 0), "cifar100-full": cifar100}
    for name in SETS:
        most = FULL if name.endswith("-full") else few
        for seed in map(int, args.seeds.split(",")):
            make = partial(audited, data, others.get(name), most, seed, args.weights)
            page.archive.kept(Card, f"{name}-seed{seed}", make)


def cell(rows: list[Row]) -> str:
    """PSNR with its interval, and SSIM."""
    psnr = plus_minus([r.psnr for r in rows], "{:.1f}", rows[0].psnr_interval)
    return f"{psnr} / {statistics.mean(r.ssim for r in rows):.2f}"


def text(cards: dict[str, list[Card]], records: str) -> str:
    """The Markdown page of the cards of each set; `records` links to them."""
    several = next(iter(cards.values()))
    first, seeds = several[0], ",".join(str(c.seed) for c in several)
    lines = [
        "# What mismatched images cost the adversary",
        "",
        "Made by `python -m benchmarks.shifted_aux`. PSNR dB [95 % interval over images, or ± over seeds] / SSIM of "
        f"{PRIVATE} private CIFAR-10 test images; ResNet-20, undefended, accuracy {first.task_accuracy:.4f}; "
        f"seeds {seeds}; white box.",
        f"Attacks: {', '.join(f'`{a}`' for a in ATTACKS)}. Hardware: {first.hardware}. "
        f"Code {first.versions['code']}, torch {first.versions['torch']}.",
        f"Raw cards: {records}.",
    ]
    for cut in CUTS:
        lines += [
            "", f"## {cut}", "", f"| the adversary's images | number | {' | '.join(SHOWN)} |",
            "|---|---|" + "---|" * len(SHOWN),
        ]  # fmt: skip
        for name, words in SETS.items():
            rows = {
                attack: [r for card in cards[name] for r in card.rows if (r.cut, r.attack) == (cut, attack)]
                for attack in SHOWN
            }
            cells = [cell(rows[attack]) for attack in SHOWN]
            lines.append(f"| {words} | {cards[name][0].aux_n:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the audits and write the table."""
    asked = parser(__doc__)
    asked.add_argument("--weights", type=Path)
    for name in ("data", "cifar100", "cars"):
        asked.add_argument(f"--{name}")
    asked.add_argument("--seeds", default="0")
    args = parsed(asked, "weights", "data", "cifar100", "cars")
    page = Page("shifted-aux", args.out)
    if not args.page:
        with showing_progress():
            measure(page, args)
    page.publish(text({name: list(page.records(Card, f"{name}-seed").values()) for name in SETS}, page.link))


if __name__ == "__main__":
    start(main)
