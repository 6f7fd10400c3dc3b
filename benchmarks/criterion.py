"""Which cheap number predicts the attack: ResNet-20 on CIFAR-10 at every block, three seeds.

    python -m benchmarks.criterion --weights cifar10_resnet20.safetensors --data npz:cifar10.npz [--seeds 0,1,2]

Each seed draws other private images and another order of training for the attacks, and other images and critics for
the numbers. Writes ``docs/results/criterion.md`` and the raw records beside it; what is there already is not run again.
"""

import argparse
import math
import statistics
from pathlib import Path

import torch

from splitveil.auditing import Subject, audit
from splitveil.auditing.criterion import criterion
from splitveil.auditing.suites import custom_suite
from splitveil.cli.console import showing_progress
from splitveil.cut import trace
from splitveil.data import load_data
from splitveil.models.loader import load_model
from splitveil.records import Criterion, Number
from splitveil.report.criterion import number_text, predicts
from splitveil.report.words import NONE

MODEL, PRIVATE, IMAGES = "resnet20", 200, 2000
BLOCKS = ("bn1+relu", *(f"layer{s}{b}" for s in (1, 2, 3) for b in (".0", ".1", "")))
DECODER = "decoder:size=small,epochs=6,steps=600"
ATTACKS = ["linear", DECODER]
SHOWN = ("decoder", "strongest")
STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}
"""Two-sided 95 % points of Student's t by number of seeds."""


def measured(seed: int, args: argparse.Namespace) -> Criterion:
    """The numbers of one seed beside its attacks; the record is kept."""
    kept: Path = args.out / f"criterion-seed{seed}.json"
    if kept.exists():
        return Criterion.load(kept)
    data = load_data(args.data)
    loaded = load_model(MODEL, shape=data.shape, classes=len(data.classes), weights=args.weights)
    traced = trace(loaded.model, torch.zeros(2, *data.shape))
    subject = Subject.of_model(traced, BLOCKS, model=MODEL, weights=loaded.weights)
    out = args.work / f"seed-{seed}"
    card = audit(
        subject, data, suite=custom_suite(ATTACKS), aux_n=args.aux_n, n=PRIVATE, seed=seed, samples=0, out=out,
        resume=True,
    ).card  # fmt: skip
    found = criterion(subject, data, card, n=IMAGES, seed=seed, out=out)
    found.save(kept)
    return found


def over_seeds(values: list[float | None], text: str = "{:.2f}") -> str:
    """Mean with the 95 % interval of Student's t."""
    there = [v for v in values if v is not None]
    if not there:
        return NONE
    mean = text.format(statistics.mean(there))
    if len(there) < 2:
        return mean
    half = STUDENT.get(len(there), 2.0) * statistics.stdev(there) / math.sqrt(len(there))
    return f"{mean} ± {text.format(half)}"


def average(found: list[Criterion], name: str, cut: int) -> float | None:
    """Mean of a number at a cut over the seeds."""
    values = [n.value for c in found for n in c.cuts[cut].numbers if n.name == name]
    there = [v for v in values if v is not None]
    return statistics.mean(there) if there else None


def page(found: list[Criterion], seeds: str) -> str:
    """The Markdown page."""
    first = found[0]
    cuts, numbers = first.cuts, first.cuts[0].numbers
    lines = [
        "# Which cheap number predicts the attack",
        "",
        "Made by `python -m benchmarks.criterion`. "
        f"{MODEL} on CIFAR-10, undefended, at the stem and after every block; seeds {seeds}; means over seeds. Numbers "
        f"from {first.n:,} test images; errors are mean squared errors per element over {PRIVATE} private images. "
        f"Attacks: {', '.join(f'`{a}`' for a in ATTACKS)}; *strongest* is the one with the least error at that cut.",
        f"Hardware: {first.hardware}. Code {first.versions['code']}, torch {first.versions['torch']}. "
        f"Raw records: {', '.join(f'[seed {c.seed}](criterion-seed{c.seed}.json)' for c in found)}.",
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
    text, rhos = over_seeds([c.rho for c in own]), [c.rho for c in own if c.rho is not None]
    if len(rhos) < 2:
        return text
    half = STUDENT.get(len(rhos), 2.0) * statistics.stdev(rhos) / math.sqrt(len(rhos))
    sure = abs(statistics.mean(rhos)) > half and all(predicts(number, c) for c in own)
    return f"**{text}**" if sure else text


def main() -> None:
    """Measure every seed and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--aux-n", type=int, default=3000)
    parser.add_argument("--work", type=Path, default=Path("runs/criterion"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    with showing_progress():
        found = [measured(int(seed), args) for seed in args.seeds.split(",")]
    text = page(found, args.seeds)
    (args.out / "criterion.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
