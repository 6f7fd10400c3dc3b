"""What a mismatch of the adversary's images costs it: ResNet-20 on CIFAR-10, attacked with other people's pictures.

    python -m benchmarks.shifted_aux --weights cifar10_resnet20.safetensors --data npz:cifar10.npz
        --cifar100 npz:cifar100_subset.npz --cars npz:cars64.npz [--seeds 0]

Every set is cut to the same number of images, that of the smallest, so that only their kind differs; a last line shows
what a full set of the same distribution gives. Writes ``docs/results/shifted-aux.md`` and the raw cards beside it; what
is there already is not run again.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch

from splitveil.auditing import Subject, audit
from splitveil.auditing.suites import custom_suite
from splitveil.cli.console import showing_progress
from splitveil.cut import trace
from splitveil.data import Dataset, Images, load_data
from splitveil.models.loader import load_model
from splitveil.records import Card, Row

MODEL, CUTS, PRIVATE = "resnet20", ("layer1", "layer2", "layer3"), 100
DECODER = "decoder:size=small,epochs=6,steps=600"
ATTACKS = ["linear", DECODER, f"mle:steps=150,start=[{DECODER}]"]
SHOWN = ("mean", "nearest", "linear", "decoder", "mle", "worst_case:psnr")


def noise(data: Dataset, count: int, seed: int) -> Dataset:
    """Random pixels."""
    drawn = np.random.default_rng([seed, 11]).integers(0, 256, (count, *data.shape), dtype=np.uint8)
    images = Images(drawn, np.zeros(count, dtype=np.int64))
    return Dataset("random pixels", images, images.take(np.arange(1)), ("noise",))


def audited(name: str, aux: Dataset | None, most: int, seed: int, args: argparse.Namespace, data: Dataset) -> Card:
    """One audit; its card is kept."""
    kept: Path = args.out / f"shifted-aux-{name}-seed{seed}.json"
    if kept.exists():
        return Card.load(kept)
    loaded = load_model(MODEL, shape=data.shape, classes=len(data.classes), weights=args.weights)
    subject = Subject.of_model(
        trace(loaded.model, torch.zeros(2, *data.shape)), CUTS, model=MODEL, weights=loaded.weights
    )
    with tempfile.TemporaryDirectory() as folder:
        found = audit(
            subject, data, aux=aux, aux_n=most, suite=custom_suite(ATTACKS), n=PRIVATE, seed=seed, samples=0,
            out=Path(folder),
        ).card  # fmt: skip
    found.save(kept)
    return found


def cell(rows: list[Row]) -> str:
    """PSNR with its interval, and SSIM."""
    psnr, ssim = statistics.mean(r.psnr for r in rows), statistics.mean(r.ssim for r in rows)
    low, high = rows[0].psnr_interval or (psnr, psnr)
    spread = f" ± {2 * statistics.stdev(r.psnr for r in rows) / len(rows) ** 0.5:.1f}" if len(rows) > 1 else ""
    return f"{psnr:.1f}{spread or f' [{low:.1f}, {high:.1f}]'} / {ssim:.2f}"


def main() -> None:
    """Run the audits and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    for name in ("data", "cifar100", "cars"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    seeds = [int(s) for s in args.seeds.split(",")]
    data, cifar100, cars = (load_data(spec) for spec in (args.data, args.cifar100, args.cars))
    few = len(cars.train) + len(cars.test)
    sets: list[tuple[str, str, Dataset | None, int]] = [
        ("same", "CIFAR-10 test images, same distribution", None, few),
        ("cifar100", "CIFAR-100 subset, other classes", cifar100, few),
        ("cars", "cars, one other class, resized", cars, few),
        ("noise", "random pixels", noise(data, few, 0), few),
        ("cifar100-full", "CIFAR-100 subset, all", cifar100, 6000),
        ("same-full", "CIFAR-10 test images, same distribution", None, 6000),
    ]
    with showing_progress():
        cards = {name: [audited(name, aux, most, s, args, data) for s in seeds] for name, _, aux, most in sets}
    first = next(iter(cards.values()))[0]
    lines = [
        "# What mismatched images cost the adversary",
        "",
        "Made by `python -m benchmarks.shifted_aux`. PSNR dB [95 % interval over images, or ± over seeds] / SSIM of "
        f"{PRIVATE} private CIFAR-10 test images; ResNet-20, undefended, accuracy {first.task_accuracy:.4f}; "
        f"seeds {args.seeds}; white box.",
        f"Attacks: {', '.join(f'`{a}`' for a in ATTACKS)}. Hardware: {first.hardware}. "
        f"Code {first.versions['code']}, torch {first.versions['torch']}.",
        f"Raw cards: {', '.join(f'[{p.stem}]({p.name})' for p in sorted(args.out.glob('shifted-aux-*.json')))}.",
    ]
    for cut in CUTS:
        lines += [
            "", f"## {cut}", "", f"| the adversary's images | number | {' | '.join(SHOWN)} |",
            "|---|---|" + "---|" * len(SHOWN),
        ]  # fmt: skip
        for name, words, _, _ in sets:
            rows = {
                attack: [r for card in cards[name] for r in card.rows if (r.cut, r.attack) == (cut, attack)]
                for attack in SHOWN
            }
            cells = [cell(rows[attack]) for attack in SHOWN]
            lines.append(f"| {words} | {cards[name][0].aux_n:,} | {' | '.join(cells)} |")
    (args.out / "shifted-aux.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
