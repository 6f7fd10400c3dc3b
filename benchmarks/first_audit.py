"""The README's table: what a trained ResNet-20 leaks at the end of each stage, undefended, to a whole suite of attacks.

    python -m benchmarks.first_audit --weights cifar10_resnet20.safetensors --data npz:cifar10.npz
        [--suite standard] [--seeds 0,1,2]

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

MODEL, CUTS, PRIVATE = "resnet20", ("layer1", "layer2", "layer3"), 500
STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}
"""Two-sided 95 % points of Student's t by number of seeds."""


def run(weights: Path, data: str, suite: str, seed: int, out: Path) -> Card:
    """One audit; its card is kept."""
    card = out / f"audit-resnet20-{suite}-seed{seed}.json"
    if card.exists():
        return Card.load(card)
    images = load_data(data)
    loaded = load_model(MODEL, shape=images.shape, classes=len(images.classes), weights=weights)
    traced = trace(loaded.model, torch.zeros(2, *images.shape))
    subject = Subject.of_model(traced, CUTS, model=MODEL, weights=loaded.weights)
    with tempfile.TemporaryDirectory() as folder:
        found = audit(subject, images, suite=suite, n=PRIVATE, seed=seed, samples=0, out=Path(folder)).card
    found.save(card)
    return found


def spread(values: list[float], digits: int, images: tuple[float, float] | None = None) -> str:
    """Mean and half-width of the 95 % interval over seeds; of one seed the interval over images, where there is one."""
    mean = statistics.mean(values)
    if len(values) not in STUDENT:
        return f"{mean:.{digits}f}" + (f" [{images[0]:.{digits}f}, {images[1]:.{digits}f}]" if images else "")
    return f"{mean:.{digits}f} ± {STUDENT[len(values)] * statistics.stdev(values) / math.sqrt(len(values)):.{digits}f}"


def main() -> None:
    """Run the seeds and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--suite", default="standard")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    seeds = [int(s) for s in args.seeds.split(",")]
    cards = [run(args.weights, args.data, args.suite, seed, args.out) for seed in seeds]
    first = cards[0]
    lines = [
        "# ResNet-20 on CIFAR-10, undefended",
        "",
        f"Made by `python -m benchmarks.first_audit --weights cifar10_resnet20.safetensors --data npz:cifar10.npz "
        f"--suite {args.suite} --seeds {args.seeds}`.",
        f"Task accuracy {first.task_accuracy:.4f}; suite {first.suite}; {PRIVATE} private images a seed; "
        f"seeds {args.seeds}; intervals are 95 %: [low, high] bootstrapped over images with one seed, ± over seeds "
        "(Student's t), which includes the draw of the images, with several.",
        f"{first.threat_model}. Hardware: {first.hardware}; seconds an audit: "
        f"{', '.join(f'{c.seconds:.0f}' for c in cards)}. "
        f"Code {first.versions['code']}, torch {first.versions['torch']}.",
        f"Raw cards: {', '.join(f'[seed {c.seed}](audit-resnet20-{args.suite}-seed{c.seed}.json)' for c in cards)}.",
        "",
        "| cut | attack | PSNR dB | worst 5 % | SSIM | worst 5 % | MSE | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for i, row in enumerate(first.rows):
        rows = [c.rows[i] for c in cards]
        cells = [
            spread([r.psnr for r in rows], 2, first.rows[i].psnr_interval),
            spread([r.psnr_worst5 for r in rows], 1),
            spread([r.ssim for r in rows], 3, first.rows[i].ssim_interval),
            spread([r.ssim_worst5 for r in rows], 3),
            spread([r.mse for r in rows], 4),
            f"{statistics.median(r.seconds for r in rows):.1f}",
        ]
        lines.append(f"| {row.cut} | {row.attack} | {' | '.join(cells)} |")
    if first.inferences:
        lines += ["", "| cut | label attack | attribute | accuracy | chance | seconds |", "|---|---|---|---|---|---|"]
        for k, answer in enumerate(first.inferences):
            accuracy = spread([c.inferences[k].accuracy for c in cards], 3, answer.accuracy_interval)
            lines.append(
                f"| {answer.cut} | {answer.attack} | {answer.attribute} | {accuracy} | {answer.chance:.3f} "
                f"| {answer.seconds:.1f} |"
            )
    doubts = [f"- {reason}" for c in cards for reason in c.unreliable]
    lines += ["", "Self-checks raised:" if doubts else "No self-check was raised.", *doubts]
    (args.out / "audit-resnet20.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
