"""Which cheap number predicts the attack: ResNet-20 on CIFAR-10 at every block, three seeds.

    python -m benchmarks.criterion --weights cifar10_resnet20.safetensors --data npz:cifar10.npz [--seeds 0,1,2]
    python -m benchmarks.criterion --page

Each seed draws other private images and another order of training for the attacks, and other images and critics for
the numbers. Writes ``docs/results/criterion.md`` and its records into the archive; what is there already is not run
again.
"""

import argparse
import statistics
from functools import partial
from pathlib import Path

from benchmarks.net import load_net
from benchmarks.over_seeds import half_width, plus_minus
from benchmarks.page import Page, parsed, parser, start
from splitveil.cli.console import showing_progress
from splitveil.core.records import Criterion, Number
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.criterion import criterion
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.data import load_data
from splitveil.report.criterion import number_text, predicts
from splitveil.report.words import NONE

MODEL, PRIVATE, IMAGES = "resnet20", 200, 2000
BLOCKS = ("bn1+relu", *(f"layer{s}{b}" for s in (1, 2, 3) for b in (".0", ".1", "")))
DECODER = "decoder:size=small,epochs=6,steps=600"
ATTACKS = ["linear", DECODER]
SHOWN = ("decoder", "strongest")


def measured(seed: int, args: argparse.Namespace) -> Criterion:
    """The numbers of one seed beside its attacks."""
    data = load_data(args.data)
    net = load_net(MODEL, data, args.weights)
    subject = Subject.of_model(net.traced, BLOCKS, model=MODEL, weights=net.weights)
    out = args.work / f"seed-{seed}"
    card = audit(
        subject, data, suite=custom_suite(ATTACKS), aux_n=args.aux_n, n=PRIVATE, seed=seed, samples=0, out=out,
        resume=True,
    ).card  # fmt: skip
    return criterion(subject, data, card, n=IMAGES, seed=seed, out=out)


def average(found: list[Criterion], name: str, cut: int) -> float | None:
    """Mean of a number at a cut over the seeds."""
    values = [n.value for c in found for n in c.cuts[cut].numbers if n.name == name]
    there = [v for v in values if v is not None]
    return statistics.mean(there) if there else None


def text(found: list[Criterion], records: str) -> str:
    """The Markdown page; `records` links to what it is made from."""
    first, seeds = found[0], ",".join(str(c.seed) for c in found)
    cuts, numbers = first.cuts, first.cuts[0].numbers
    lines = [
        "# Which cheap number predicts the attack",
        "",
        "Made by `python -m benchmarks.criterion`. "
        f"{MODEL} on CIFAR-10, undefended, at the stem and after every block; seeds {seeds}; means over seeds. Numbers "
        f"from {first.n:,} test images; errors are mean squared errors per element over {PRIVATE} private images. "
        f"Attacks: {', '.join(f'`{a}`' for a in ATTACKS)}; *strongest* is the one with the least error at that cut.",
        f"Hardware: {first.hardware}. Code {first.versions['code']}, torch {first.versions['torch']}. "
        f"Raw records: {records}.",
        "",
        "rho is Spearman's rank correlation over the cuts with that attack's error, mean over seeds ± half the 95 % "
        "interval of Student's t; bold where its sign is what the number promises and the interval leaves out 0. "
        "None of these numbers is a guarantee.",
        "",
        f"| number | unit | more means | {' | '.join(c.cut for c in cuts)} | "
        f"{' | '.join(f'rho with {a}' for a in SHOWN)} |",
        "|---|---|---|" + "---|" * (len(cuts) + len(SHOWN)),
    ]
    for attack in SHOWN:
        errors = [statistics.mean(c.cuts[k].errors[attack] for c in found) for k in range(len(cuts))]
        lines.append(f"| **error, {attack}** | MSE | leaks less | {' | '.join(map(number_text, errors))} | | |")
    for number in numbers:
        values = [number_text(average(found, number.name, k)) for k in range(len(cuts))]
        rhos = [_rho(found, number, attack) for attack in SHOWN]
        lines.append(
            f"| {_cell(number.name)} | {number.unit} | leaks {number.leaks} | {' | '.join([*values, *rhos])} |"
        )
    lines += [
        "", "## Where the answer is known", "",
        "The same estimators at the deepest and the shallowest cut, seed "
        f"{first.seed}: what they say of x itself, of the label, and of shuffled pairs.",
        "",
        "| number | cap | samples | shallowest cut | deepest cut | how, and what it is not |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for shallow, deep in zip(cuts[0].numbers, cuts[-1].numbers, strict=True):
        known = [
            "; ".join(f"{k} = {number_text(v)}" for k, v in n.calibration.items()) or NONE for n in (shallow, deep)
        ]
        lines.append(
            f"| {_cell(shallow.name)} | {number_text(shallow.cap)} | {shallow.samples or ''} | {' | '.join(known)} | "
            f"{_cell(shallow.note)} |"
        )
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A bar would end the cell."""
    return text.replace("|", "\\|")


def _rho(found: list[Criterion], number: Number, attack: str) -> str:
    own = [c for f in found for c in f.correlations if (c.number, c.attack) == (number.name, attack)]
    shown, rhos = plus_minus([c.rho for c in own]), [c.rho for c in own if c.rho is not None]
    half = half_width(rhos)
    sure = half is not None and abs(statistics.mean(rhos)) > half and all(predicts(number, c) for c in own)
    return f"**{shown}**" if sure else shown


def main() -> None:
    """Measure every seed and write the page."""
    asked = parser(__doc__)
    asked.add_argument("--weights", type=Path)
    asked.add_argument("--data")
    asked.add_argument("--seeds", default="0,1,2")
    asked.add_argument("--aux-n", type=int, default=3000)
    asked.add_argument("--work", type=Path, default=Path("runs/criterion"))
    args = parsed(asked, "weights", "data")
    page = Page("criterion", args.out)
    with showing_progress():
        for seed in () if args.page else map(int, args.seeds.split(",")):
            page.archive.kept(Criterion, f"seed{seed}", partial(measured, seed, args))
    page.publish(text(sorted(page.records(Criterion).values(), key=lambda c: c.seed), page.link))


if __name__ == "__main__":
    start(main)
