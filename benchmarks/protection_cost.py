"""Cost of protection: one training step of every defence over one of the plain split, in turn, in one run.

    python -m benchmarks.protection_cost --weights cifar10_resnet20.safetensors --data npz:cifar10.npz
        [--model resnet20] [--at layer2] [--batch 128] [--steps 12] [--defenses noise siftfunnel ...]
        [--save docs/results/protection-cost.md]

What `splitveil.lab.protection.protect` does in a step: forward through both halves, the defence's losses, its co-
trained adversary where it has one, backward, AdamW, in the precision that training uses. A defence that trains in
stages is timed in each, and counts as the mean by their shares of the epochs. Weights are trained ones, since
`distillation` asks a teacher only if it knows something.

The plain step and the defended one take turns; the first turns are dropped; the ratio is the median over turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.net import load_net
from splitveil.core.records.base import write_atomically
from splitveil.lab.cut import Split
from splitveil.lab.data import load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected, Sample, Stage
from splitveil.lab.protection import shared
from splitveil.lab.seeds import fingerprint, hardware
from splitveil.lab.training import native_precision
from splitveil.wire.codecs import CODECS

STUDIED, WARM = 256, 2
ALONE, WITH_ADVERSARY = 1.5, 2.5
"""What a step may cost without and with a co-trained adversary."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one defence.

    Attributes:
        ratio: of a step's time to the plain step's, mean over stages by their shares of the epochs.
        stages: the same by stage, with the half of the spread between the quartiles.
        adversary: one trains beside it.
    """

    ratio: float
    stages: dict[str, tuple[float, float]]
    adversary: bool

    @property
    def within(self) -> bool:
        """Whether it keeps the limit."""
        return self.ratio <= (WITH_ADVERSARY if self.adversary else ALONE)


def halves(args: argparse.Namespace) -> Split:
    """Fresh halves with the weights."""
    return load_net(args.model, args.images, args.weights).traced.split(args.at)


def pictures(args: argparse.Namespace, count: int) -> tuple[Tensor, Tensor]:
    """The first training images and their labels."""
    some = args.images.train.take(np.arange(count))
    x = torch.from_numpy(some.x).float() / 255
    return x.contiguous(memory_format=torch.channels_last), torch.from_numpy(some.y)


def stepper(protected: Protected, stage: Stage, x: Tensor, y: Tensor, classes: int) -> Callable[[], float]:
    """A function that takes one training step and says how many seconds it took."""
    protected.stage = stage
    for name, part in protected.parts().items():
        part.requires_grad_(name in stage.trains)
    if not stage.task_only:
        protected.rival = protected.defense.adversary(protected.split.cut.shape, (x.shape[1], *x.shape[2:]), classes)
    protected.train()
    optimizer = torch.optim.AdamW([p for p in protected.parameters() if p.requires_grad], lr=1e-5)

    def step() -> float:
        begun = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=native_precision().startswith("bf16")):
            loss = protected.loss(x, y)
        loss.backward()
        optimizer.step()
        return time.perf_counter() - begun

    return step


def measured(spec: str, plain: Callable[[], float], args: argparse.Namespace, x: Tensor, y: Tensor) -> Cost:
    """The cost of one defence."""
    torch.manual_seed(0)
    defense = DEFENSES.build(spec)
    split = defense.install(halves(args)).eval()
    defense.study(split, Sample(*pictures(args, STUDIED), 0))
    found, times, adversary = dict[str, tuple[float, float]](), list[float](), False
    stages = defense.stages()
    for stage in stages:
        split = defense.enter(split, stage)
        with torch.no_grad():
            defense.calibrate(split.eval().edge(x))
        protected = Protected(split, defense, CODECS.build("raw"))
        step = stepper(protected, stage, x, y, len(args.images.classes))
        adversary = adversary or protected.rival is not None
        ratios = [step() / plain() for _ in range(WARM + args.steps)][WARM:]
        low, middle, high = statistics.quantiles(ratios, n=4)
        found[stage.name], protected.stage = (middle, (high - low) / 2), None
        times.append(middle)
    shares = shared([s.share for s in stages], 1000)
    return Cost(sum(t * s for t, s in zip(times, shares, strict=True)) / sum(shares), found, adversary)


def main() -> None:
    """Time every defence and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--at", default="layer2")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--defenses", nargs="+", default=[n for n in DEFENSES.names() if n != "none"])
    parser.add_argument("--save", type=Path)
    args = parser.parse_args()
    args.images = load_data(args.data)
    x, y = pictures(args, args.batch)
    undefended = Protected(halves(args), DEFENSES.build("none"), CODECS.build("raw"))
    plain = stepper(undefended, Stage(), x, y, len(args.images.classes))
    seconds = statistics.median([plain() for _ in range(WARM + args.steps)][WARM:])
    lines = [
        "# Cost of protection",
        "",
        f"Made by `python -m benchmarks.protection_cost`. {args.model} cut at {args.at}, batch {args.batch}, "
        f"{native_precision()}: a plain step takes {1000 * seconds:.0f} ms. Ratio: a training step with the defence "
        f"over a plain one, taken in turn, median of {args.steps}; ± half the distance of the quartiles. Limits: "
        f"{ALONE} without and {WITH_ADVERSARY} with a co-trained adversary.",
        f"Hardware: {hardware()}, {torch.get_num_threads()} threads. Code {fingerprint()['code']}, torch "
        f"{torch.__version__}.",
        "",
        "| defence | co-trained adversary | ratio | by stage | within the limit |",
        "|---|---|---|---|---|",
    ]
    for spec in args.defenses:
        cost = measured(spec, plain, args, x, y)
        stages = "; ".join(f"{name} {middle:.2f} ± {spread:.2f}" for name, (middle, spread) in cost.stages.items())
        lines.append(
            f"| {spec} | {'yes' if cost.adversary else 'no'} | {cost.ratio:.2f} | {stages} | "
            f"{'two at once' if spec == 'chain' else 'yes' if cost.within else '**no**'} |"
        )
        print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    if args.save:
        write_atomically(args.save, text.encode())
    print(text)


if __name__ == "__main__":
    main()
