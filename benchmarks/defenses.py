"""Every defence at the same accuracy: ResNet-20 on CIFAR-10, floors first, and whether the papers' directions hold.

    python -m benchmarks.defenses --weights cifar10_resnet20.safetensors --data npz:cifar10.npz
        [--part survey seeds ...] [--judge NAME --judge-weights FILE] [--work runs/defenses]

Each part is a comparison with settings of its own (`PARTS`); it and its cards go into the archive
``docs/results/defenses-cifar10.jsonl``, and the page and its pictures are made anew from the parts that are there. A
killed run goes on where it stopped; with ``--only NAME ...`` a second process trains and attacks some defences of a
part in advance and writes nothing else; ``--page``, or ``--part`` without a name, makes the page alone.
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.net import load_net
from benchmarks.page import Page, parser, start
from splitveil.cli.audit import read_judge
from splitveil.cli.console import showing_progress
from splitveil.core.records import Card, Comparison, Contender, Estimate, Measured
from splitveil.lab.auditing.suites import find_suite
from splitveil.lab.comparing import compare, without_tuning
from splitveil.lab.comparing.verdict import findings, overlap
from splitveil.lab.cut import Split
from splitveil.lab.data import Dataset, load_data
from splitveil.report import render_comparison, render_picture
from splitveil.report.words import attack_label

NAME = "defenses-cifar10"
MODEL, AT = "resnet20", "layer2"
SMOOTHING = {"positive": "label_smoothing:alpha=0.3", "negative": "label_smoothing:alpha=-0.05"}
VEIL = {
    "whole": "veil", "no teacher": "veil:distillation=0.0", "no passage": "veil:channels=0",
    "full resolution": "veil:pool=1", "no noise": "veil:sigma=0.0", "with a rival": "veil:adversarial=1.0",
}  # fmt: skip
PATROL = {
    "full": "patrol:adversarial=1.0",
    "Lipschitz alone": "patrol:adversarial=0.0",
    "adversary alone": "patrol:adversarial=1.0,lipschitz=0.0",
    "pruning alone": "patrol:adversarial=0.0,lipschitz=0.0",
}
PRIVYNET = {"supervised": "privynet:keep=8", "random": "privynet:keep=8,choice=random"}
FUNNEL = "siftfunnel:channels=12,pool=2,replace=0"
"""768 numbers instead of 8,192, behind the whole edge half."""
SHREDDER = "shredder:collection=2"
"""One member in each of two epochs."""
SURVEY = (
    "noise", "laplace", "dropout", SHREDDER, "pripro", "cloak", "nopeek", "adversarial", "vib", "cem", "disco",
    "ensembler", "infoscissors", "noise_for_floor", "label_smoothing", *SMOOTHING.values(), "uniform", "top_k",
    "bottleneck", "veil",
)  # fmt: skip
LEADERS = ("veil", "pripro", "noise")
"""Veil, and the published ones that leaked least in the survey within 1 point."""


@dataclass(frozen=True, slots=True)
class Part:
    """One comparison of the page.

    Attributes:
        title: of its section.
        about: what is compared and why, in a sentence or two.
        defenses: specs.
        train: training images.
        epochs: of every training.
        suite: of attacks.
        drops: budgets in points.
        seeds: each trains and audits anew.
        n: private images.
        aux: the adversary's images.
        trials: trainings that tuning may spend on a defence and a budget.
        lr: peak learning rate.
    """

    title: str
    about: str
    defenses: tuple[str, ...]
    train: int = 10_000
    epochs: int = 2
    suite: str = "smoke"
    drops: tuple[float, ...] = (1.0, 3.0)
    seeds: tuple[int, ...] = (0,)
    n: int = 100
    aux: int = 3000
    trials: int = 5
    lr: float = 1e-3


PARTS = {
    "survey": Part("All that keep the net", "Every defence that starts from the trained net.", SURVEY),
    "ablation": Part("What each part of veil does", "Veil, and veil without one of its parts.", tuple(VEIL.values())),
    "narrow": Part(
        "Within 1 point under the standard suite",
        "The standard suite's adversary also sees each private image sixteen times, which averages noise down. "
        "Adversarial learning draws none; of the published ones that draw none it leaked least in the survey within 1 "
        "point.",
        ("veil", "adversarial"),
        suite="standard",
        drops=(1.0,),
        seeds=(0, 1, 2),
    ),
    "wide": Part(
        "Within 3 points under the standard suite",
        "As before, with one seed.",
        ("veil", "adversarial"),
        suite="standard",
        drops=(3.0,),
    ),
    "seeds": Part(
        "The best ones with three seeds",
        "Each seed trains and attacks anew.",
        LEADERS,
        seeds=(0, 1, 2),
    ),
    "smoothing": Part(
        "Label smoothing",
        "Positive and negative smoothing at the strengths of the Golden Partition Zone, with a budget that positive "
        "smoothing keeps after training that short.",
        tuple(SMOOTHING.values()),
        drops=(12.0,),
        seeds=(0, 1, 2),
    ),
    "layers": Part(
        "Defences with new layers",
        "PATROL removes half of the edge's multiply-accumulates, SiftFunnel puts layers with random weights into the "
        "net. Neither is back at its accuracy after training that short, so everything here is trained longer, and has "
        "a budget that they reach.",
        (FUNNEL, "noise", "dropout", "vib", *PATROL.values()),
        epochs=8,
        drops=(21.0,),
    ),
    "subsets": Part(
        "PrivyNet's choice",
        "Eight of the 32 channels, drawn from what supervised pruning leaves or from all; each seed draws its own.",
        tuple(PRIVYNET.values()),
        drops=(40.0,),
        seeds=(0, 1, 2),
    ),
}  # fmt: skip
Check = tuple[str, str, str]
"""What the paper says, what was measured, and whether it holds."""


def directions(parts: Iterable[Comparison]) -> list[Check]:
    """The directions of the papers, one line each, budget and part that has them."""
    checks: list[Check] = []
    for found in parts:
        for drop in found.drops:
            by = {c.label: c.measured for c in found.contenders if c.drop == drop}
            for check in (_funnel, _patrol, _pripro, _privynet):
                checks += [(f"within {drop:g}: {says}", saw, holds) for says, saw, holds in check(by, found)]
        checks += _smoothing(found)
    return checks


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
    apart = {True: "intervals overlap", False: "intervals apart", None: "no interval"}[overlap(value, rival)]
    absent = [k for k in others if k not in there]
    told = f"{'holds' if holds else '**does not hold**'} ({apart})"
    return says, saw, told + (f"; no number for {', '.join(absent)}" if absent else "")


def _mse(by: dict[str, Measured | None], name: str) -> Estimate | None:
    return m.mse if (m := by.get(name)) else None


def _funnel(by: dict[str, Measured | None], found: Comparison) -> list[Check]:
    if FUNNEL not in by:
        return []
    rivals = {k: _mse(by, k) for k in ("noise", "dropout", "vib")}
    says = "SiftFunnel: error above noise, dropout and VIB"
    checks = [_compared(says, ("siftfunnel", _mse(by, FUNNEL)), rivals, more=True)]
    own, plain = by[FUNNEL], found.undefended.measured
    if own and plain:
        times = plain.payload_bytes / own.payload_bytes
        small = "holds" if times >= 10 else "**does not hold**"
        checks.append(("SiftFunnel: payload at least 10 times smaller", f"{times:.1f} times", small))
        within = "holds" if own.lost.mean <= 3 else "**does not hold**"
        checks.append(("SiftFunnel: within 3 points of the plain split", f"{own.lost.mean:.2f} points lost", within))
    return checks


def _patrol(by: dict[str, Measured | None], found: Comparison) -> list[Check]:
    if PATROL["full"] not in by:
        return []
    errors = {part: _mse(by, spec) for part, spec in PATROL.items()}
    return [
        _compared("PATROL: error of the full loss above each part", ("full", errors.pop("full")), errors, more=True)
    ]


def _pripro(by: dict[str, Measured | None], found: Comparison) -> list[Check]:
    if SHREDDER not in by:
        return []
    one, other = by.get("pripro"), by[SHREDDER]
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
    if PRIVYNET["supervised"] not in by:
        return []
    psnr = {choice: m.psnr if (m := by.get(spec)) else None for choice, spec in PRIVYNET.items()}
    says = "PrivyNet: supervised subsets leak less than random ones"
    one, others = ("supervised", psnr["supervised"]), {"random": psnr["random"]}
    return [_compared(says, one, others, more=False, text="{:.2f} dB")]


def _smoothing(found: Comparison) -> list[Check]:
    """R_c^2 / D of what leaves the device, where a budget kept both; settings are fixed, so any budget will do."""
    reached = {c.label: c.measured for c in found.contenders if c.measured}
    if not all(spec in reached for spec in SMOOTHING.values()):
        return []
    radius = {sign: reached[spec].radius for sign, spec in SMOOTHING.items()}
    plain = found.undefended.measured
    none = {"none": plain.radius if plain else None}
    return [
        _compared("label smoothing 0.3: smaller R_c²/D", ("positive", radius["positive"]), none, more=False),
        _compared("label smoothing below 0: larger R_c²/D", ("negative", radius["negative"]), none, more=True),
    ]


def text(parts: dict[str, Comparison], records: str) -> str:
    """The Markdown page of the parts that are there; `records` links to them."""
    first = next(iter(parts.values()))
    lines = [
        "# Defences at the same accuracy",
        "",
        f"Made by `python -m benchmarks.defenses`. {first.model} ({first.weights}) on CIFAR-10, cut at "
        f"`{first.cut}`, codec {first.codec}; {first.threat_model}. In each part all are trained alike, the undefended "
        "split too. Each defence's knob is turned, with the first seed, to the strongest setting found whose "
        "validation accuracy is within the budget of the undefended split. Accuracy and points lost are from test "
        "images. PSNR and SSIM: worst case per image over all attacks, mean over seeds with the 95 % interval of "
        "Student's t where there are several. "
        "What training costs: [cost of protection](protection-cost.md).",
        "",
        f"torch {first.versions.get('torch', '')}. Records and cards: {records}.",
    ]
    for name, found in parts.items():
        lines += ["", *_section(name, found)]
    lines += ["", "## Whether the papers' directions hold", "", "| direction | measured | |", "|---|---|---|"]
    lines += [f"| {says} | {saw} | {holds} |" for says, saw, holds in directions(parts.values())]
    return "\n".join(lines) + "\n"


def _section(name: str, found: Comparison) -> list[str]:
    part, first = PARTS[name], found.undefended
    lines = [
        f"## {part.title}",
        "",
        f"{part.about} {part.train:,} training images, {found.epochs} epochs at {found.lr:g}; suite {found.suite}, "
        f"{found.private_n} private images, seed{'s' if len(found.seeds) > 1 else ''} "
        f"{', '.join(map(str, found.seeds))}; at most {found.trials} trainings to tune a defence to a budget below "
        f"{first.validation:.2%}. Record: comparison `{name}`, code "
        f"{found.versions.get('code', '')}, on {found.hardware}.",
        "",
        f"![leakage against accuracy lost]({NAME}-{name}.svg)",
        "",
        "| defence | setting | test accuracy | points lost | PSNR, dB | SSIM | strongest | edge MACs | "
        "edge parameters | bytes sent |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for floor in found.floors:
        whose = "floor" if floor.free else "floor, of the undefended split's features"
        lines.append(
            f"| *{attack_label(floor.attack)}* | {whose} | | | {_pm(floor.psnr, 2)} | {_pm(floor.ssim, 3)} | | | | |"
        )
    lines.append(_row(first))
    for drop in found.drops:
        lines.append(f"| **within {drop:g} point{'' if drop == 1 else 's'}** | | | | | | | | | |")
        lines += [_row(c) for c in found.ranked(drop)]
    lines += ["", *(f"- {said}" for said in findings(found.contenders, found.drops))]
    if found.notes:
        lines += ["", "Notes: " + "; ".join(found.notes) + "."]
    return lines


def _row(c: Contender) -> str:
    name = "**undefended**" if c.drop is None else c.label if c.defends else f"{c.label} (not a defence)"
    value = f"{c.knob} = {c.value:g}" if c.value is not None else ""
    m = c.measured
    if m is None:
        return f"| {name} | {value} | misses it by {c.missing:.2f} points of validation accuracy | | | | | | | |"
    doubt = " **do not trust**" if m.unreliable else ""
    return (
        f"| {name}{doubt} | {value} | {m.accuracy.mean:.2%} | {_pm(m.lost, 2)} | {_pm(m.psnr, 2)} | {_pm(m.ssim, 3)} | "
        f"{attack_label(m.strongest.get('psnr', ''))} | {m.edge_macs:,} | {m.edge_params:,} | "
        f"{m.payload_bytes:,} |"
    )


def _pm(e: Estimate, digits: int) -> str:
    half = f" ± {(e.interval[1] - e.interval[0]) / 2:.{digits}f}" if e.interval else ""
    return f"{e.mean:.{digits}f}{half}"


def starting(weights: Path | None, data: Dataset) -> Callable[[int], Split]:
    """Seed -> halves with the weights that every training starts from."""
    return lambda seed: load_net(MODEL, data, weights, seed).traced.split(AT)


def measure(part: Part, args: argparse.Namespace) -> Comparison:
    """Run one part, or as much of it as is asked for, on what was done before."""
    data = load_data(f"{args.data}?n={part.train}")
    data, tuning = without_tuning(data, len(data.test) // 2 if args.weights else 0)
    judge = read_judge(args.judge, args.judge_weights, data)
    weights = load_net(MODEL, data, args.weights).weights
    return compare(
        starting(args.weights, data), data, model=MODEL, weights=weights,
        defenses=[d for d in part.defenses if not args.only or d in args.only], out=args.work, drops=part.drops,
        suite=find_suite(part.suite), n=part.n, aux_n=part.aux, seeds=part.seeds, trials=part.trials,
        epochs=part.epochs, lr=part.lr, tuning=tuning, judge=judge, resume=True,
    )  # fmt: skip


def cards_of(found: Comparison) -> dict[str, str]:
    """Where a comparison's cards lie below its working folder, by their names in the archive."""
    paths = (card for c in found.contenders if c.measured for card in c.measured.cards)
    return {Path(path).parent.name: path for path in paths}


def keep(name: str, found: Comparison, page: Page, work: Path) -> None:
    """Put a part and its cards into the archive, instead of what was there of it."""
    before = page.archive.find(Comparison, name)
    cards = {card: Card.load(work / path) for card, path in cards_of(found).items()}
    page.archive.put({name: found, **cards})
    wanted = {card for part in page.archive.all(Comparison).values() for card in cards_of(part)}
    page.archive.drop(Card, set(cards_of(before) if before else ()) - wanted)
    render_comparison(found, work / f"{name}.html")


def main() -> None:
    """Compare and write the page."""
    asked = parser(__doc__)
    asked.add_argument("--weights", type=Path)
    asked.add_argument("--data", default="")
    asked.add_argument("--part", nargs="*", metavar="PART", default=list(PARTS), help="none: the page alone")
    asked.add_argument("--only", nargs="+", metavar="DEFENSE")
    asked.add_argument("--judge")
    asked.add_argument("--judge-weights", type=Path)
    asked.add_argument("--work", type=Path, default=Path("runs/defenses"))
    args = asked.parse_args()
    wanted = [] if args.page else args.part
    if unknown := [name for name in wanted if name not in PARTS]:
        asked.error(f"unknown part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    if wanted and not args.data:
        asked.error("--data is missing; give it, or --page for the page alone.")
    page = Page(NAME, args.out)
    with showing_progress():
        for name in wanted:
            found = measure(PARTS[name], args)
            if not args.only:
                keep(name, found, page, args.work)
    if not args.only:
        kept = page.records(Comparison)
        there = {name: kept[name] for name in PARTS if name in kept}
        for name, found in there.items():
            render_picture(found, args.out / f"{NAME}-{name}.svg")
        page.publish(text(there, page.link))


if __name__ == "__main__":
    start(main)
