"""What an adversary gains by the exact law of a defence: ResNet-20 at layer2, CIFAR-10, each attack with and without.

    python -m benchmarks.exact_laws --weights cifar10_resnet20.safetensors --data npz:cifar10.npz [--seeds 0]
    python -m benchmarks.exact_laws --page

`disco` and `shredder` are trained for four epochs, the others work without. Writes ``docs/results/exact-laws.md`` and
its cards into the archive; what is there already is not run again.
"""

import argparse
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.net import load_net
from benchmarks.over_seeds import plus_minus
from benchmarks.page import Page, parsed, parser, start
from splitveil.cli.console import showing_progress
from splitveil.core.records import Card, Row
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.data import load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.protection import protect
from splitveil.wire.codecs import CODECS

MODEL, CUT, PRIVATE, OFTEN = "resnet20", "layer2", 100, 16
DECODER = "decoder:size=small,epochs=6,steps=600"
MLE = f"mle:steps=150,start=[{DECODER}]"
CLIP = f"clip:attack=[{DECODER}],frames=8"


@dataclass(frozen=True, slots=True)
class Case:
    """A defence and a codec, the epochs that it gets, and whether it draws at random."""

    defense: str
    codec: str = "raw"
    epochs: int = 0
    random: bool = False

    @property
    def attacks(self) -> list[str]:
        """With the law and without, once and often where that makes a difference."""
        once = [DECODER, MLE, f"law:attack=[{MLE}]"]
        often = [f"{how}:attack=[{MLE}],k={OFTEN}" for how in ("repeat", "law")]
        return [*once, *(often if self.random else ()), *([CLIP] if self.random else ())]


CASES = {
    "none": Case("none"),
    "dropout": Case("dropout:rate=0.4", random=True),
    "disco": Case("disco:ratio=0.33", epochs=4),
    "top_k": Case("top_k:keep=0.1"),
    "laplace": Case("laplace:sigma=1.0", random=True),
    "noise": Case("noise:sigma=1.0", random=True),
    "shredder": Case("shredder:collection=4", epochs=4, random=True),
    "bits2": Case("none", "uniform:bits=2"),
}
SHOWN = (("decoder", ""), ("mle", ""), ("law", "k=1"), ("repeat", f"k={OFTEN}"), ("law", f"k={OFTEN}"), ("clip", ""))


def audited(case: Case, weights: Path, data: str, seed: int) -> Card:
    """One audit of the defended configuration alone."""
    images = load_data(data)
    net = load_net(MODEL, images, weights)
    protected, _ = protect(
        net.traced.split(CUT), DEFENSES.build(case.defense), CODECS.build(case.codec), images,
        epochs=case.epochs, seed=seed,
    )  # fmt: skip
    subject = Subject.of_split(protected, model=MODEL, weights=net.weights)
    own = replace(subject, configurations=subject.configurations[-1:])
    with tempfile.TemporaryDirectory() as folder:
        return audit(
            own, images, suite=custom_suite(case.attacks), n=PRIVATE, seed=seed, samples=0, out=Path(folder)
        ).card


def measure(page: Page, args: argparse.Namespace) -> None:
    """Run the audits that the archive does not hold."""
    for name in args.cases.split(",") if args.cases else CASES:
        for seed in map(int, args.seeds.split(",")):
            make = partial(audited, CASES[name], args.weights, args.data, seed)
            page.archive.kept(Card, f"{name}-seed{seed}", make)


def found(cards: list[Card], attack: str, option: str) -> list[Row]:
    """The rows of one attack in the cards of one case."""
    return [r for c in cards for r in c.rows if r.attack == attack and r.options.endswith(option)]


def cell(rows: list[Row]) -> str:
    """PSNR with its interval, and SSIM."""
    if not rows:
        return ""
    psnr = plus_minus([r.psnr for r in rows], "{:.2f}", rows[0].psnr_interval)
    return f"{psnr} / {sum(r.ssim for r in rows) / len(rows):.3f}"


def text(cards: dict[str, list[Card]], records: str) -> str:
    """The Markdown page; `records` links to the cards."""
    first = next(iter(cards.values()))[0]
    seeds = ",".join(str(c.seed) for c in next(iter(cards.values())))
    machines = dict.fromkeys(c.hardware for own in cards.values() for c in own)
    lines = [
        "# What the exact law of a defence is worth to an adversary",
        "",
        f"Made by `python -m benchmarks.exact_laws`. PSNR dB [95 % interval over images, or ± over seeds] / SSIM of "
        f"{PRIVATE} private CIFAR-10 test images; {MODEL} cut at {CUT}; the adversary holds {first.aux_n:,} images; "
        f"seeds {seeds}; white box. `law` and `repeat` ({OFTEN} requests) hold the search `mle`; `clip` is the "
        "decoder on a clip of 8 frames.",
        f"`{MLE}`. Hardware: {'; '.join(machines)}. Code {first.versions['code']}, torch {first.versions['torch']}.",
        f"Raw cards: {records}.",
        "",
        f"| defence, codec | accuracy | decoder | mle | law of mle | mle, {OFTEN} times | law of mle, {OFTEN} times "
        "| clip of decoder |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, own in cards.items():
        case = CASES[name]
        shown = [cell(found(own, *which)) for which in SHOWN]
        lines.append(f"| `{case.defense}`, {case.codec} | {own[0].task_accuracy:.3f} | {' | '.join(shown)} |")
    doubts = [f"- {name}, seed {c.seed}: {why}" for name, own in cards.items() for c in own for why in c.unreliable]
    lines += ["", "Self-checks raised:" if doubts else "No self-check was raised.", *doubts]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the audits and write the table."""
    asked = parser(__doc__)
    asked.add_argument("--weights", type=Path)
    asked.add_argument("--data")
    asked.add_argument("--seeds", default="0")
    asked.add_argument("--cases", default="", help="some of them, with commas; all without")
    args = parsed(asked, "weights", "data")
    page = Page("exact-laws", args.out)
    if not args.page:
        with showing_progress():
            measure(page, args)
    known = page.records(Card)
    cards = {name: [c for key, c in known.items() if key.startswith(f"{name}-seed")] for name in CASES}
    page.publish(text({name: own for name, own in cards.items() if own}, page.link))


if __name__ == "__main__":
    start(main)
