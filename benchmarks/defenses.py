"""Every defence at the same accuracy: ResNet-20 on CIFAR-10, floors first, and whether the papers' directions hold.

    python -m benchmarks.defenses --weights cifar10_resnet20.safetensors --data npz:cifar10.npz [--at layer2]
        [--seeds 0,1,2] [--suite standard] [--defenses noise dropout ...] [--judge NAME --judge-weights FILE]

Writes ``docs/results/defenses-cifar10.md``, the record and the cards beside it; a killed run goes on where it stopped.
"""

import argparse
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from splitveil.auditing.suites import custom_suite, find_suite
from splitveil.cli.audit import read_judge
from splitveil.cli.console import showing_progress
from splitveil.cut import Split, trace
from splitveil.data import load_data
from splitveil.defenses import DEFENSES
from splitveil.models.loader import load_model
from splitveil.records import Comparison, Contender, Estimate, Measured
from splitveil.registry import Spec
from splitveil.report import render_comparison
from splitveil.report.words import attack_label
from splitveil.sweeps import compare, without_tuning
from splitveil.sweeps.verdict import overlap

NAME = "defenses-cifar10"
PATROL = {
    "full": "patrol",
    "Lipschitz alone": "patrol:adversarial=0.0",
    "adversary alone": "patrol:lipschitz=0.0",
    "pruning alone": "patrol:adversarial=0.0,lipschitz=0.0",
}
SMOOTHING = {"positive": "label_smoothing:alpha=0.3", "negative": "label_smoothing:alpha=-0.05"}
VEIL = {
    "whole": "veil", "no teacher": "veil:distillation=0.0", "no passage": "veil:channels=0",
    "full resolution": "veil:pool=1", "no noise": "veil:sigma=0.0", "with a rival": "veil:adversarial=1.0",
}  # fmt: skip
PRIVYNET = {"supervised": "privynet", "random": "privynet:choice=random"}
DEFAULT = [
    "noise", "laplace", "dropout", "uniform", "top_k", "siftfunnel", *PATROL.values(), "pripro", "shredder",
    *PRIVYNET.values(), "label_smoothing", *SMOOTHING.values(), "cloak", "nopeek", "adversarial", "vib", "cem", "disco",
    "ensembler", "infoscissors", "noise_for_floor", "bottleneck", *VEIL.values(),
]  # fmt: skip
"""What is registered of these is run."""
Check = tuple[str, str, str]
"""What the paper says, what was measured, and whether it holds."""


def directions(found: Comparison) -> list[Check]:
    """The directions of the papers, one line each and budget."""
    checks: list[Check] = []
    for drop in found.drops:
        by = {c.label: c.measured for c in found.contenders if c.drop == drop}
        for check in (_funnel, _patrol, _pripro, _privynet):
            checks += [(f"within {drop:g}: {says}", saw, holds) for says, saw, holds in check(by, found)]
    return checks + _smoothing(found)


def _of(by: dict[str, Measured | None], name: str) -> Measured | None:
    return by.get(name)


def _compared(
    says: str, one: tuple[str, Estimate | None], others: dict[str, Estimate | None], *, more: bool, text: str = "{:.4f}"
) -> Check:
    """Whether `one` is above (`more`) or below all others, and whether the intervals over seeds tell them apart."""
    name, value = one
    there = {k: v for k, v in others.items() if v is not None}
    if value is None or not there:
        lacking = [name] if value is None else list(others)
        return says, f"no number for {', '.join(lacking)}", "not measured"
    saw = f"{name} {text.format(value.mean)}; " + ", ".join(f"{k} {text.format(v.mean)}" for k, v in there.items())
    rival = (max if more else min)(there.values(), key=lambda v: v.mean)
    holds = value.mean > rival.mean if more else value.mean < rival.mean
    apart = {True: "intervals overlap", False: "intervals apart", None: "one seed"}[overlap(value, rival)]
    absent = [k for k in others if k not in there]
    told = f"{'holds' if holds else '**does not hold**'} ({apart})"
    return says, saw, told + (f"; no number for {', '.join(absent)}" if absent else "")


def _funnel(by: dict[str, Measured | None], found: Comparison) -> list[Check]:
    own, rivals = _of(by, "siftfunnel"), {k: m.mse if (m := _of(by, k)) else None for k in ("noise", "dropout", "vib")}
    says = "SiftFunnel: error above noise, dropout and VIB"
    checks = [_compared(says, ("siftfunnel", own.mse if own else None), rivals, more=True)]
    plain = found.undefended.measured
    if own and plain:
        times = plain.payload_bytes / own.payload_bytes
        small = "holds" if times >= 10 else "**does not hold**"
        checks.append(("SiftFunnel: payload at least 10 times smaller", f"{times:.1f} times", small))
    return checks


def _patrol(by: dict[str, Measured | None], found: Comparison) -> list[Check]:
    errors = {part: m.mse if (m := _of(by, spec)) else None for part, spec in PATROL.items()}
    return [
        _compared("PATROL: error of the full loss above each part", ("full", errors.pop("full")), errors, more=True)
    ]


def _pripro(by: dict[str, Measured | None], found: Comparison) -> list[Check]:
    one, other = _of(by, "pripro"), _of(by, "shredder")
    names = sorted({k for m in (one, other) if m for k in m.extra})
    correct, index = (next((k for k in names if k.partition("@")[0] == name), name) for name in ("pa", "pi_q5"))
    return [
        _compared(
            f"PriPro: {name} {'above' if more else 'below'} Shredder's",
            ("pripro", one.extra.get(key) if one else None),
            {"shredder": other.extra.get(key) if other else None},
            more=more,
        )
        for name, key, more in (("PA", correct, False), ("5 % PI", index, True))
    ]


def _privynet(by: dict[str, Measured | None], found: Comparison) -> list[Check]:
    psnr = {choice: m.psnr if (m := _of(by, spec)) else None for choice, spec in PRIVYNET.items()}
    others = {"random": psnr["random"]}
    says = "PrivyNet: supervised subsets leak less than random ones"
    return [_compared(says, ("supervised", psnr["supervised"]), others, more=False, text="{:.2f} dB")]


def _smoothing(found: Comparison) -> list[Check]:
    """Fixed settings, so any budget that they kept will do; R_c^2 / D of what leaves the device."""
    plain = found.undefended.measured
    radius: dict[str, Estimate | None] = {"none": plain.radius if plain else None}
    for sign, spec in SMOOTHING.items():
        reached = [c.measured for c in found.contenders if c.label == spec and c.measured]
        radius[sign] = reached[0].radius if reached else None
    none = {"none": radius["none"]}
    return [
        _compared("label smoothing 0.3: smaller R_c²/D", ("positive", radius["positive"]), none, more=False),
        _compared("label smoothing below 0: larger R_c²/D", ("negative", radius["negative"]), none, more=True),
    ]


def page(found: Comparison) -> str:
    """The Markdown page."""
    first = found.undefended
    lines = [
        "# Defences at the same accuracy",
        "",
        f"Made by `python -m benchmarks.defenses`. {found.model} ({found.weights}) on {found.data}, "
        f"cut at `{found.cut}`, codec {found.codec}; suite {found.suite}, {found.private_n} private images, seeds "
        f"{', '.join(map(str, found.seeds))}; {found.threat_model}. Every training {found.epochs} epochs at "
        f"{found.lr:g}, the undefended split's too; at most {found.trials} settings a defence and a budget, chosen "
        f"with the first seed on {first.validation:.2%} validation accuracy less the budget. Accuracy and points lost "
        "are from test images. PSNR and SSIM: worst case per image over all attacks, mean over seeds with the 95 % "
        "interval of Student's t.",
        f"Hardware: {found.hardware}. Code {found.versions.get('code', '')}, torch {found.versions.get('torch', '')}. "
        f"Raw record: [{NAME}.json]({NAME}.json), cards in [{NAME}/]({NAME}/).",
        "",
        "| defence | setting | test accuracy | points lost | PSNR, dB | SSIM | strongest | edge MACs | "
        "edge parameters | bytes sent | training over plain |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for floor in found.floors:
        lines.append(
            f"| *{attack_label(floor.attack)}* | floor | | | {_pm(floor.psnr, 2)} | {_pm(floor.ssim, 3)} | | | | | |"
        )
    lines.append(_row(first))
    for drop in found.drops:
        lines.append(f"| **within {drop:g} points** | | | | | | | | | | |")
        lines += [_row(c) for c in found.ranked(drop)]
    lines += ["", "## What binds", "", *(f"- {text}" for text in found.findings)]
    lines += ["", "## Whether the papers' directions hold", "", "| direction | measured | |", "|---|---|---|"]
    lines += [f"| {says} | {saw} | {holds} |" for says, saw, holds in directions(found)]
    if found.notes:
        lines += ["", "Notes: " + "; ".join(found.notes) + "."]
    return "\n".join(lines) + "\n"


def _row(c: Contender) -> str:
    name = "**undefended**" if c.drop is None else c.label if c.defends else f"{c.label} (not a defence)"
    value = f"{c.knob} = {c.value:g}" if c.value is not None else ""
    m = c.measured
    if m is None:
        return f"| {name} | {value} | misses it by {c.missing:.2f} points of validation accuracy | | | | | | | | |"
    doubt = " **do not trust**" if m.unreliable else ""
    return (
        f"| {name}{doubt} | {value} | {m.accuracy.mean:.2%} | {_pm(m.lost, 2)} | {_pm(m.psnr, 2)} | {_pm(m.ssim, 3)} | "
        f"{attack_label(m.strongest.get('psnr', ''))} | {m.edge_macs:,} | {m.edge_params:,} | "
        f"{m.payload_bytes:,} | {m.epoch_ratio or math.nan:.2f} |"
    )


def _pm(e: Estimate, digits: int) -> str:
    half = f" ± {(e.interval[1] - e.interval[0]) / 2:.{digits}f}" if e.interval else ""
    return f"{e.mean:.{digits}f}{half}"


def starting(args: argparse.Namespace, shape: tuple[int, int, int], classes: int) -> Callable[[int], Split]:
    """Seed -> halves with the weights that every training starts from."""

    def fresh(seed: int) -> Split:
        loaded = load_model(args.model, shape=shape, classes=classes, weights=args.weights, seed=seed)
        return trace(loaded.model, torch.zeros(2, *shape)).split(args.at)

    return fresh


def main() -> None:
    """Compare and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--at", default="layer2")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--suite", default="standard")
    parser.add_argument("--attack", action="append", help="instead of a suite")
    parser.add_argument("--defenses", nargs="+", default=DEFAULT)
    parser.add_argument("--drops", nargs="+", type=float, default=[1.0, 3.0])
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--aux-n", type=int, default=None)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--codec", default="raw")
    parser.add_argument("--judge")
    parser.add_argument("--judge-weights", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/defenses"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    data = load_data(args.data)
    data, tuning = without_tuning(data, len(data.test) // 2 if args.weights else 0)
    known = set(DEFENSES.names()) | {"uniform"}
    chosen = [d for d in args.defenses if args.defenses is not DEFAULT or Spec.parse(d).name in known]
    weights = load_model(args.model, shape=data.shape, classes=len(data.classes), weights=args.weights).weights
    with showing_progress():
        found = compare(
            starting(args, data.shape, len(data.classes)), data, model=args.model, weights=weights, defenses=chosen,
            out=args.work, drops=args.drops, codec=args.codec,
            suite=custom_suite(args.attack) if args.attack else find_suite(args.suite), n=args.n, aux_n=args.aux_n,
            seeds=[int(s) for s in args.seeds.split(",")], trials=args.trials, epochs=args.epochs, lr=args.lr,
            tuning=tuning,
            judge=read_judge(args.judge, args.judge_weights, data), resume=True,
        )  # fmt: skip
    found.save(args.out / f"{NAME}.json")
    cards = [card for c in found.contenders if c.measured for card in c.measured.cards]
    (args.out / NAME).mkdir(parents=True, exist_ok=True)
    for card in dict.fromkeys(cards):
        shutil.copyfile(args.work / card, args.out / NAME / f"{Path(card).parent.name}.json")
    render_comparison(found, args.work / "comparison.html")
    text = page(found)
    (args.out / f"{NAME}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
