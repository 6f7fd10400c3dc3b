"""Where features become those of a decision, by cheap numbers and by attack: CIFAR-10, four nets, every block.

    python -m benchmarks.plan_zone --data npz:cifar10.npz --weights resnet20=cifar10_resnet20.safetensors \\
        resnet56=cifar10_resnet56.safetensors [--models resnet20 resnet56 vgg11 vit] [--seeds 0,1,2]
    python -m benchmarks.plan_zone --page

Nets without weights are trained here first, vgg11 at half its width. Each seed draws other images and another order of
training for the attack. Writes ``docs/results/plan-cifar10.md`` and its records into the archive; what is there already
is not run again.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from benchmarks.net import load_net
from benchmarks.over_seeds import plus_minus
from benchmarks.page import Page, parsed, parser, start
from splitveil.cli.console import showing_progress
from splitveil.core.records import Document, Row
from splitveil.core.records.plan import CutCurve, Figure, Zone
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.cut import Cut, Traced, trace
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.models.loader import save_weights
from splitveil.lab.models.vgg import STAGES_11, VGG
from splitveil.lab.models.vit import vit_tiny32
from splitveil.lab.planning.depth import curves
from splitveil.lab.planning.transition import LEAST, METHODS, find_zone, find_zones
from splitveil.lab.planning.verification import AGREES, DECODER, judged
from splitveil.lab.protection import protect
from splitveil.lab.seeds import derive, fingerprint, hardware
from splitveil.report.words import NONE

CLAIM = 4.0
"""Error of decision-level cuts over that of shallow ones, as arXiv 2506.15412 has it."""
SHALLOW = 1 / 3
"""Of the MACs: cuts up to which the device's share counts as shallow."""
ATTACK = "decoder_mse"
COLUMNS = {
    "rc2": "R_c^2/D", "rc2_relative": "R_c^2/total", "rc2_predicted": "R_c^2/D, own answers", "within": "within",
    "within_shuffled": "within, shuffled", "rank": "rank", "h_x_z": "H(x\\|z), kbit", "h_z": "h(z), kbit",
    "linear_mse": "linear MSE", ATTACK: "decoder MSE",
}  # fmt: skip

CHANGES = (*METHODS, "linear_mse", ATTACK)
"""Columns that show the change from the cut before."""


class Found(Document):
    """One net with one seed."""

    kind: ClassVar[str] = "plan-zone"

    model: str
    weights: str
    seed: int
    accuracy: float
    floor: float
    """Error of the mean image."""
    attack: str
    private_n: int
    aux_n: int
    curves: list[CutCurve]
    zones: list[Zone]
    doubts: dict[str, list[str]]
    """Of the attack, by cut."""
    hardware: str
    seconds: float
    versions: dict[str, str]


def vgg11_half(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """VGG-11 with half as many channels."""
    return VGG(tuple(tuple(width // 2 for width in stage) for stage in STAGES_11), shape[0], classes)


OWN: dict[str, tuple[Callable[[tuple[int, int, int], int], nn.Module], float]] = {
    "vgg11": (vgg11_half, 2e-3), "vit": (vit_tiny32, 1e-3),
}  # fmt: skip
"""Nets that are trained here, with their peak learning rates."""


def blocks(traced: Traced) -> list[str]:
    """One cut for every block: of all that hold as many numbers after as many MACs, the last."""
    places = {(c.edge_macs * 200 // max(1, c.edge_macs + c.cloud_macs), np.prod(c.shape)): c for c in traced.cuts()}
    return [c.name for c in sorted(places.values(), key=lambda c: c.index) if "attention" not in c.name]


def net_of(name: str, data: Dataset, args: argparse.Namespace) -> tuple[Traced, str]:
    """A trained net, traced, and where its weights are from."""
    given = dict(pair.split("=", 1) for pair in args.weights)
    if name in given or name not in OWN:
        if name not in given:
            raise SystemExit(f"expected weights for {name}; give --weights {name}=FILE.safetensors.")
        found = load_net(name, data, Path(given[name]))
        return found.traced, found.weights
    build, lr = OWN[name]
    epochs, images = args.train_epochs, min(args.train_n, len(data.train))
    file = args.work / f"{name}-{epochs}-{images}.safetensors"
    torch.manual_seed(derive(0, name))
    net = build(data.shape, len(data.classes))
    if not file.exists():
        some = Dataset(data.name, data.train.take(np.arange(images)), data.test, data.classes)
        split = trace(net, torch.zeros(2, *data.shape)).split(blocks(trace(net, torch.zeros(2, *data.shape)))[0])
        trained, _ = protect(
            split, "none", "raw", some, epochs=epochs, lr=lr, checkpoint=file.with_suffix(".checkpoint"), resume=True
        )
        net.load_state_dict(trained.split.edge.state_dict() | trained.split.cloud.state_dict())
        save_weights(net, file)
    net.load_state_dict(load_file(file))
    weights = f"trained here on {images:,} images for {epochs} epochs"
    return trace(net.eval(), torch.zeros(2, *data.shape)), weights


def measured(name: str, seed: int, data: Dataset, args: argparse.Namespace) -> Found:
    """Everything about one net with one seed."""
    begun = time.perf_counter()
    traced, weights = net_of(name, data, args)
    at = args.cuts or blocks(traced)
    depth = curves(traced, data, n=args.n, seed=seed, cuts=at)
    subject = Subject.of_model(traced, at, model=name, weights=weights)
    card = audit(
        subject, data, suite=custom_suite([args.attack]), aux_n=args.aux_n, n=args.private, seed=seed, samples=0,
        out=args.work / f"{name}-seed{seed}", resume=True,
    ).card  # fmt: skip
    rows = {r.cut: r for r in card.rows if r.attack == args.attack.partition(":")[0]}
    depth = [c.model_copy(update={"numbers": {**c.numbers, ATTACK: error_of(rows[c.cut.name])}}) for c in depth]
    zones = [with_attack(zone, [c.cut for c in depth], rows) for zone in find_zones(depth)]
    return Found(
        model=name, weights=weights, seed=seed, accuracy=card.task_accuracy, attack=args.attack,
        floor=statistics.mean(r.mse for r in card.rows if r.attack == "mean"), private_n=card.private_n,
        aux_n=card.aux_n, curves=depth, zones=[*zones, find_zone(depth, ATTACK, least=1 - 1 / AGREES, rises=True)],
        doubts={cut: r.unreliable for cut, r in rows.items() if r.unreliable}, hardware=hardware(),
        seconds=round(time.perf_counter() - begun, 1), versions=fingerprint(),
    )  # fmt: skip


def error_of(row: Row) -> Figure:
    return Figure(value=row.mse, measured=True, interval=row.mse_interval, source=row.options or row.attack)


def with_attack(zone: Zone, cuts: Sequence[Cut], rows: dict[str, Row]) -> Zone:
    """The zone and what the attack says at its edge."""
    place = next((k for k, c in enumerate(cuts) if c.name == zone.first), 0)
    if not place:
        return zone
    before, first = cuts[place - 1], cuts[place]
    return judged(zone, before, first, rows[before.name], rows[first.name])


def section(runs: list[Found]) -> list[str]:
    """What the page says of one net."""
    first, cuts = runs[0], [c.cut for c in runs[0].curves]
    parts = f"{statistics.mean(r.accuracy for r in runs):.2%} of the test images right"
    heads = [head for name, title in COLUMNS.items() for head in ((title, "change") if name in CHANGES else (title,))]
    lines = [
        f"## {first.model}", "",
        f"{first.weights}; {parts}. The mean image's error is {statistics.mean(r.floor for r in runs):.4f}.", "",
        f"| cut | MACs on the device | numbers | {' | '.join(heads)} |", "|---|---|---|" + "---|" * len(heads),
    ]  # fmt: skip
    for k, cut in enumerate(cuts):
        cells = [cell for name in COLUMNS for cell in _cells(runs, name, k)]
        lines.append(f"| {cut.name} | {cut.edge_share:.0%} | {int(np.prod(cut.shape)):,} | {' | '.join(cells)} |")
    lines += ["", "| by | seed | zone from | MACs on the device | error behind over before | the attack |"]
    lines += ["|---|---|---|---|---|---|"]
    for run in runs:
        for zone in run.zones:
            says = {True: "agrees", False: "does not agree", None: NONE}[zone.verified]
            gain = f"x{zone.gain:.2f}" if zone.gain is not None else NONE
            share = f"{zone.edge_share:.0%}" if zone.edge_share is not None else NONE
            lines.append(f"| {zone.method} | {run.seed} | {zone.first or 'no zone'} | {share} | {gain} | {says} |")
    doubts = sorted({f"{cut} ({'; '.join(why)})" for r in runs for cut, why in r.doubts.items()})
    lines += ["", *[f"* {said}" for said in (*agreement(runs), *unpooled(runs), *claims(runs))]]
    return [*lines, *([f"* The audit doubts the decoder at {', '.join(doubts)}."] if doubts else []), ""]


def _cells(runs: list[Found], name: str, k: int) -> list[str]:
    """A number at a cut over the seeds, and its change from the cut before."""
    scale = 1e3 if name in ("h_x_z", "h_z") else 1
    form = "{:.4f}" if name.endswith("mse") else "{:.1f}" if name == "rank" or scale > 1 else "{:.3f}"
    values = [r.curves[k].numbers[name].value / scale for r in runs]
    shown = plus_minus(values, form)
    if name not in CHANGES:
        return [shown]
    before = statistics.mean(r.curves[k - 1].numbers[name].value / scale for r in runs) if k else 0.0
    return [shown, f"{(statistics.mean(values) - before) / before:+.0%}" if before else ""]


def agreement(runs: list[Found]) -> list[str]:
    """Whether cheap numbers and the attack name the same place, in words."""
    lines = []
    for method in METHODS:
        said = [_apart(run, method) for run in runs]
        lines.append(f"`{method}` and the attack's own jump: {'; '.join(dict.fromkeys(said))}.")
    return lines


def _apart(run: Found, method: str) -> str:
    names = [c.cut.name for c in run.curves]
    zone, own = (next((z.first for z in run.zones if z.method == m), None) for m in (method, ATTACK))
    if zone is None or own is None:
        both = zone is None and own is None
        return "both find no zone" if both else f"only {'the attack' if zone is None else method} finds one"
    apart = names.index(zone) - names.index(own)
    if not apart:
        return f"the same cut, {zone}"
    return f"{abs(apart)} cuts apart ({method} {zone}, the attack {own})"


def unpooled(runs: list[Found]) -> list[str]:
    """The zones where the deepest step, the mean over all positions, is left out, in words."""
    lines = []
    for method in METHODS:
        where = []
        for run in runs:
            wide = [c for c in run.curves if len(c.cut.shape) > 1 and max(c.cut.shape[1:]) > 1]
            first = find_zone(wide, method).first
            where.append(f"from {first} on" if first else "no zone")
        lines.append(f"`{method}` among cuts that hand on maps or tokens alone: {'; '.join(dict.fromkeys(where))}.")
    return lines


def claims(runs: list[Found]) -> list[str]:
    """Whether decision-level cuts reach four times the error of shallow ones, in words."""
    lines = []
    for method in ("rc2", "rc2_relative", ATTACK):
        ratios = []
        for run in runs:
            zone = next((z for z in run.zones if z.method == method), None)
            if zone is None or zone.first is None:
                continue
            place = [c.cut.name for c in run.curves].index(zone.first)
            errors = [c.numbers[ATTACK].value for c in run.curves]
            pairs = zip(run.curves[:place], errors, strict=False)
            shallow = [e for c, e in pairs if c.cut.edge_share <= SHALLOW] or errors[:1]
            deep = errors[place:]
            ratios.append((statistics.mean(deep) / statistics.mean(shallow), min(deep) / max(shallow)))
        if not ratios:
            lines.append(f"Decision-level cuts by `{method}`: none, so there is no {CLAIM:g}-fold error to look for.")
            continue
        mean, least = (min(r[i] for r in ratios) for i in (0, 1))
        lines.append(
            f"Decision-level cuts by `{method}` {'reach' if mean >= CLAIM else 'do not reach'} {CLAIM:g} times the "
            f"error of shallow ones (up to {SHALLOW:.0%} of the MACs, or the first): mean over mean x{mean:.1f}, the "
            f"least of them over the greatest shallow one x{least:.1f}; the worst of {len(ratios)} of {len(runs)} "
            "seeds, those with a zone."
        )
    return lines


def text(found: list[Found], records: str) -> str:
    """The Markdown page; `records` links to what it is made from."""
    one, models = found[0], list(dict.fromkeys(f.model for f in found))
    lines = [
        "# Golden Partition Zone: where features become those of a decision", "",
        "Made by `python -m benchmarks.plan_zone`, CIFAR-10. Undefended nets, the last cut of every block; means over "
        "seeds ± half the 95 % interval of Student's t. Errors are mean squared errors per element, pixels in "
        f"[0, 1], of `{one.attack}` over {one.private_n} private images, the adversary holding {one.aux_n:,} others. "
        f"Hardware: {one.hardware}. Code {one.versions['code']}, torch {one.versions['torch']}. "
        f"Raw records: {records}.", "",
        "R_c^2/D is in channel variances, which count what differs from position to position in every image alike; "
        "R_c^2/total is the share of the variance between images that is within classes; *within* is the variance "
        "within k-means clusters over all variance, *shuffled* the same where no cluster is left; *rank* is the "
        "effective rank of the features' covariance over at most 1,000 images; H(x\\|z) is the bound "
        "H(x) - h(z) - kappa for 8-bit features, with an H(x) that is too large: it orders cuts and certifies nothing; "
        "h(z) is what it subtracts. A zone begins behind the largest drop that lasts, is at least "
        f"{LEAST:.0%} and whose intervals part; the attack's own jump is a factor of "
        f"{AGREES:g}, and it agrees with a zone where the error rises as much at its edge. All of this is our "
        "reading.", "",
    ]  # fmt: skip
    for model in models:
        lines += section(sorted((f for f in found if f.model == model), key=lambda f: f.seed))
    return "\n".join(lines)


def main() -> None:
    """Measure every net and write the page."""
    asked = parser(__doc__)
    asked.add_argument("--weights", nargs="*", default=[], metavar="NAME=FILE")
    asked.add_argument("--data")
    asked.add_argument("--models", nargs="+", default=["resnet20", "resnet56", "vgg11", "vit"])
    asked.add_argument("--cuts", nargs="*", default=[], help="instead of every block")
    asked.add_argument("--seeds", default="0,1,2")
    asked.add_argument("--n", type=int, default=2000, help="images of the cheap numbers")
    asked.add_argument("--private", type=int, default=200)
    asked.add_argument("--aux-n", type=int, default=3000)
    asked.add_argument("--attack", default=DECODER)
    asked.add_argument("--train-epochs", type=int, default=8)
    asked.add_argument("--train-n", type=int, default=20_000)
    asked.add_argument("--work", type=Path, default=Path("runs/plan-zone"))
    args = parsed(asked, "data")
    page = Page("plan-cifar10", args.out)
    if not args.page:
        data = load_data(args.data)
        args.work.mkdir(parents=True, exist_ok=True)
        with showing_progress():
            for name in args.models:
                for seed in map(int, args.seeds.split(",")):
                    page.archive.kept(Found, f"{name}-seed{seed}", partial(measured, name, seed, data, args))
    page.publish(text(list(page.records(Found).values()), page.link))


if __name__ == "__main__":
    start(main)
