"""The README's table: what a trained ResNet-20 leaks after each stage, undefended, to a whole suite of attacks.

    python -m benchmarks.first_audit --weights cifar10_resnet20.safetensors --data npz:cifar10.npz
        [--suite standard] [--seeds 0,1,2]
    python -m benchmarks.first_audit --page [--suite standard]

Each seed draws other private images, other decoder weights and another order of training. Writes
``docs/results/audit-resnet20.md`` and its cards into the archive; what is there already is not run again.
"""

import statistics
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.net import load_net
from benchmarks.over_seeds import plus_minus
from benchmarks.page import Page, parsed, parser, start
from splitveil.core.records import Card
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.data import load_data

MODEL, CUTS, PRIVATE = "resnet20", ("layer1", "layer2", "layer3"), 500


def audited(weights: Path, data: str, suite: str, seed: int) -> Card:
    """One audit."""
    images = load_data(data)
    net = load_net(MODEL, images, weights)
    subject = Subject.of_model(net.traced, CUTS, model=MODEL, weights=net.weights)
    with tempfile.TemporaryDirectory() as folder:
        return audit(subject, images, suite=suite, n=PRIVATE, seed=seed, samples=0, out=Path(folder)).card


def text(cards: list[Card], suite: str, records: str) -> str:
    """The Markdown page of one suite's cards; `records` links to them."""
    first, seeds = cards[0], ",".join(str(c.seed) for c in cards)
    lines = [
        "# ResNet-20 on CIFAR-10, undefended",
        "",
        f"Made by `python -m benchmarks.first_audit --weights cifar10_resnet20.safetensors --data npz:cifar10.npz "
        f"--suite {suite} --seeds {seeds}`.",
        f"Task accuracy {first.task_accuracy:.4f}; suite {first.suite}; {PRIVATE} private images a seed; "
        f"seeds {seeds}; intervals are 95 %: [low, high] bootstrapped over images with one seed, ± over seeds "
        "(Student's t), which includes the draw of the images, with several.",
        f"{first.threat_model}. Hardware: {first.hardware}; seconds an audit: "
        f"{', '.join(f'{c.seconds:.0f}' for c in cards)}. "
        f"Code {first.versions['code']}, torch {first.versions['torch']}.",
        f"Raw cards: {records}.",
        "",
        "| cut | attack | PSNR dB | worst 5 % | SSIM | worst 5 % | MSE | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for i, row in enumerate(first.rows):
        rows = [c.rows[i] for c in cards]
        cells = [
            plus_minus([r.psnr for r in rows], "{:.2f}", row.psnr_interval),
            plus_minus([r.psnr_worst5 for r in rows], "{:.1f}"),
            plus_minus([r.ssim for r in rows], "{:.3f}", row.ssim_interval),
            plus_minus([r.ssim_worst5 for r in rows], "{:.3f}"),
            plus_minus([r.mse for r in rows], "{:.4f}"),
            f"{statistics.median(r.seconds for r in rows):.1f}",
        ]
        lines.append(f"| {row.cut} | {row.attack} | {' | '.join(cells)} |")
    if first.inferences:
        lines += ["", "| cut | label attack | attribute | accuracy | chance | seconds |", "|---|---|---|---|---|---|"]
        for k, answer in enumerate(first.inferences):
            accuracy = plus_minus([c.inferences[k].accuracy for c in cards], "{:.3f}", answer.accuracy_interval)
            lines.append(
                f"| {answer.cut} | {answer.attack} | {answer.attribute} | {accuracy} | {answer.chance:.3f} "
                f"| {answer.seconds:.1f} |"
            )
    doubts = [f"- {reason}" for c in cards for reason in c.unreliable]
    lines += ["", "Self-checks raised:" if doubts else "No self-check was raised.", *doubts]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the seeds and write the table."""
    asked = parser(__doc__)
    asked.add_argument("--weights", type=Path)
    asked.add_argument("--data")
    asked.add_argument("--suite", default="standard")
    asked.add_argument("--seeds", default="0,1,2")
    args = parsed(asked, "weights", "data")
    page = Page("audit-resnet20", args.out)
    for seed in () if args.page else map(int, args.seeds.split(",")):
        make = partial(audited, args.weights, args.data, args.suite, seed)
        page.archive.kept(Card, f"{args.suite}-seed{seed}", make)
    cards = page.records(Card, f"{args.suite}-seed").values()
    page.publish(text(sorted(cards, key=lambda card: card.seed), args.suite, page.link))


if __name__ == "__main__":
    start(main)
