"""The README's table with three seeds: what a trained ResNet-20 leaks at the end of each stage, undefended.

    python -m benchmarks.first_audit --weights cifar10_resnet20.safetensors --data npz:cifar10.npz [--seeds 0,1,2]

Each seed draws other private images, other decoder weights and another order of training. Writes
``docs/results/audit-resnet20.md`` and the raw cards beside it; what is there already is not run again.
"""

import argparse
import math
import statistics
import tempfile
from pathlib import Path

import torch

from splitveil.auditing import Subject, audit
from splitveil.cut import trace
from splitveil.data import load_data
from splitveil.models.loader import load_model
from splitveil.records import Card

MODEL, CUTS, SUITE, PRIVATE = "resnet20", ("layer1", "layer2", "layer3"), "smoke", 500
STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}
"""Two-sided 95 % points of Student's t by number of seeds."""


def run(weights: Path, data: str, seed: int, out: Path) -> Card:
    """One audit; its card is kept."""
    card = out / f"audit-resnet20-seed{seed}.json"
    if card.exists():
        return Card.load(card)
    images = load_data(data)
    loaded = load_model(MODEL, shape=images.shape, classes=len(images.classes), weights=weights)
    traced = trace(loaded.model, torch.zeros(2, *images.shape))
    subject = Subject.of_model(traced, CUTS, model=MODEL, weights=loaded.weights)
    with tempfile.TemporaryDirectory() as folder:
        found = audit(subject, images, suite=SUITE, n=PRIVATE, seed=seed, samples=0, out=Path(folder)).card
    found.save(card)
    return found


def spread(values: list[float], digits: int) -> str:
    """Mean and half-width of the 95 % interval over seeds."""
    mean = statistics.mean(values)
    if len(values) not in STUDENT:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {STUDENT[len(values)] * statistics.stdev(values) / math.sqrt(len(values)):.{digits}f}"


def main() -> None:
    """Run the seeds and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    seeds = [int(s) for s in args.seeds.split(",")]
    cards = [run(args.weights, args.data, seed, args.out) for seed in seeds]
    first = cards[0]
    lines = [
        "# ResNet-20 on CIFAR-10, undefended",
        "",
        "Made by `python -m benchmarks.first_audit --weights cifar10_resnet20.safetensors --data npz:cifar10.npz`.",
        f"Task accuracy {first.task_accuracy:.4f}; suite {first.suite}; {PRIVATE} private images a seed; "
        f"seeds {args.seeds}; ± is the 95 % interval over seeds (Student's t), which includes the draw of the images.",
        f"{first.threat_model}. Hardware: {first.hardware}; seconds an audit: "
        f"{', '.join(f'{c.seconds:.0f}' for c in cards)}. "
        f"Code {first.versions['code']}, torch {first.versions['torch']}.",
        f"Raw cards: {', '.join(f'[seed {c.seed}](audit-resnet20-seed{c.seed}.json)' for c in cards)}.",
        "",
        "| cut | attack | PSNR dB | worst 5 % | SSIM | worst 5 % | MSE | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for i, row in enumerate(first.rows):
        rows = [c.rows[i] for c in cards]
        cells = [
            spread([r.psnr for r in rows], 2),
            spread([r.psnr_worst5 for r in rows], 1),
            spread([r.ssim for r in rows], 3),
            spread([r.ssim_worst5 for r in rows], 3),
            spread([r.mse for r in rows], 4),
            f"{statistics.median(r.seconds for r in rows):.1f}",
        ]
        lines.append(f"| {row.cut} | {row.attack} | {' | '.join(cells)} |")
    (args.out / "audit-resnet20.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
