"""The bound against the attacks: Gaussian noise on ResNet-20's features, every attack of a suite beside the dFIL floor.

    python -m benchmarks.bound --weights cifar10_resnet20.safetensors --data npz:cifar10.npz [--suite standard]
    python -m benchmarks.bound --page

"At least this leaks" beside "at most this leaks". The bound holds for images that have a density: here CIFAR-10 at half
its contrast, blurred by a known noise, so that the prior's information is bounded and nothing about it is estimated. No
attack's mean squared error may lie below that floor. Beside them the images as they are, for which the number is an
estimate that an attack may beat. Writes ``docs/results/bound.md`` and its bounds and cards into the archive; what is
there is not run again.
"""

import argparse
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from benchmarks.net import load_net
from benchmarks.page import Page, parsed, parser, start
from splitveil.cli.console import showing_progress
from splitveil.core.records import Card, Document, Row
from splitveil.core.registry import Spec
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.data import Dataset, Images, load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.defenses.base import Protected
from splitveil.lab.metrics.bounds.dfil import Certificate, certificate, floor_any
from splitveil.lab.metrics.bounds.prior import gaussian_score
from splitveil.lab.protection import protect
from splitveil.report.words import NONE
from splitveil.wire.codecs import CODECS

MODEL = "resnet20"
Setting = tuple[str, float, bool]
"""Cut, noise-to-signal ratio of the noise defence, and whether images are faded and blurred."""
SETTINGS: tuple[Setting, ...] = (("layer1", 1.0, True), ("layer2", 1.0, True), ("layer1", 1.0, False))
BLUR = 0.05
PRIVATE, AUX, PROBED, PROBES, SCORED = 100, 3000, 64, 16, 4000


class Bound(Document):
    """The bound of one setting."""

    kind: ClassVar[str] = "bound"
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Prepared:
    """A protected split, where its weights are from, what attacks run on, and the same images without blur."""

    protected: Protected
    weights: str
    data: Dataset
    clear: Dataset


def name_of(setting: Setting) -> str:
    """Of its records."""
    cut, sigma, dense = setting
    return f"{cut}-{sigma:g}-{'blurred' if dense else 'plain'}"


def faded(images: Images) -> Images:
    """At half the contrast, so that a blur stays within [0, 1]."""
    return replace(images, x=(64 + 0.5 * images.x).round().astype(np.uint8))


def blurred(images: Images, seed: int) -> Images:
    """Images with a density."""
    noise = np.random.default_rng(seed).standard_normal(images.x.shape, dtype=np.float32)
    return replace(images, x=(images.x + 255 * BLUR * noise).round().clip(0, 255).astype(np.uint8))


def prepared(cut: str, sigma: float, dense: bool, args: argparse.Namespace) -> Prepared:
    """The split, the images that the attacks run on, and the same without blur."""
    data = clear = load_data(args.data)
    if dense:
        clear = Dataset(f"{data.name}, half contrast", faded(data.train), faded(data.test), data.classes)
        data = Dataset(
            f"{clear.name}, blurred by {BLUR}", blurred(clear.train, 0), blurred(clear.test, 1), data.classes
        )
    net = load_net(MODEL, data, args.weights)
    protected, _ = protect(
        net.traced.split(cut), DEFENSES.build(f"noise:sigma={sigma}"), CODECS.build("raw"), data, epochs=0
    )
    return Prepared(protected.eval(), net.weights, data, clear)


def bounded(given: Prepared) -> Bound:
    """At most this leaks."""
    protected, clear = given.protected, given.clear
    train = torch.from_numpy(clear.train.x[:SCORED]).float() / 255
    test = torch.from_numpy(clear.test.x[:PROBED]).float() / 255
    with torch.no_grad():
        noise = protected.defense.spread(protected.split.edge(test[:1]))
    assert noise is not None
    found = certificate(
        lambda x: protected.defense.mean(protected.split.edge(x)), test, noise.double(),
        score=gaussian_score(train, smoothing=BLUR), probes=PROBES, seed=0,
    )  # fmt: skip
    return Bound(certificate=found)


def audited(given: Prepared, suite: str) -> Card:
    """At least this leaks."""
    subject = Subject.of_split(given.protected, model=MODEL, weights=given.weights)
    subject = replace(subject, configurations=subject.configurations[-1:])
    with tempfile.TemporaryDirectory() as folder:
        return audit(subject, given.data, suite=suite, n=PRIVATE, aux_n=AUX, samples=0, out=Path(folder)).card


def measure(page: Page, setting: Setting, args: argparse.Namespace) -> None:
    """Put the bound and the card of a setting into the archive, whichever is not there."""
    name, there = name_of(setting), page.archive
    if there.find(Bound, name) and there.find(Card, name):
        return
    given = prepared(*setting, args)
    there.kept(Bound, name, partial(bounded, given))
    there.kept(Card, name, partial(audited, given, args.suite))


def text(results: list[tuple[Setting, Card, Certificate]], records: str) -> str:
    """The Markdown page; `records` links to what it is made from."""
    first, score = results[0][1], results[0][2].score
    attacks = list(dict.fromkeys(r.attack for _, card, _ in results for r in card.rows))
    lines = [
        "# The bound against the attacks",
        "",
        f"Made by `python -m benchmarks.bound`. {MODEL} on CIFAR-10 with the `noise` defence, not fine-tuned; suite "
        f"{first.suite} with {AUX:,} images of the adversary; mean squared error per element over {PRIVATE} private "
        "images, pixels in [0, 1]; seed 0.",
        f"*Blurred*: CIFAR-10 at half contrast plus Gaussian noise of {BLUR}; the adversary must guess the blurred "
        "image. There the floor (van Trees, dFIL) rests on nothing that is estimated but E[Tr I], over "
        f"{PROBED} images with {PROBES} probes each: the prior's information is at most d / {BLUR}^2. *Plain*: the "
        "images as they are, which have no density; the same number is then an estimate only, and an attack may beat "
        f"it. The optimistic floor takes the prior for a Gaussian ({score.method}, {score.samples:,} images). The "
        "floor of unbiased adversaries binds no other.",
        "Where an attack reads the same input k times its own floor is lower; "
        "the floors shown are for one reading, and `repeat` is shown with its own in brackets.",
        f"Hardware: {first.hardware}. Code {first.versions['code']}, torch {first.versions['torch']}.",
        f"Raw records: {records}.",
        "",
        "| setting | floor | optimistic floor | unbiased | "
        + " | ".join(attacks)
        + " | least single reading / floor |",
        "|---|---|---|---|" + "---|" * (len(attacks) + 1),
    ]
    for (cut, sigma, dense), card, found in results:
        floor = found.surest or 0.0
        cells = [_cell(card, a, found) for a in attacks]
        once = [r.mse for r in card.rows if _readings(r) == 1]
        verdict = f"{min(once) / floor:.2f}" + ("" if min(once) >= floor else " **below**")
        lines.append(
            f"| {cut}, noise {sigma:g}, {'blurred' if dense else 'plain'} | {floor:.5f} | {found.floor:.5f} | "
            f"{found.unbiased:.5f} | {' | '.join(cells)} | {verdict} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every setting and write the table."""
    asked = parser(__doc__)
    asked.add_argument("--weights", type=Path)
    asked.add_argument("--data")
    asked.add_argument("--suite", default="standard")
    args = parsed(asked, "weights", "data")
    page = Page("bound", args.out)
    if not args.page:
        with showing_progress():
            for setting in SETTINGS:
                measure(page, setting, args)
    cards, bounds = page.records(Card), page.records(Bound)
    there = [(s, name_of(s)) for s in SETTINGS if name_of(s) in cards and name_of(s) in bounds]
    page.publish(text([(s, cards[name], bounds[name].certificate) for s, name in there], page.link))


def _readings(row: Row) -> int:
    """How often the attack reads the same input; a worst case is as strong as the most that any row reads."""
    if row.attack.startswith("worst_case"):
        return 0
    return int(Spec.parse(f"{row.attack}:{row.options}").options.get("k") or 1) if row.attack == "repeat" else 1


def _cell(card: Card, attack: str, found: Certificate) -> str:
    row = next((r for r in card.rows if r.attack == attack), None)
    if row is None:
        return NONE
    readings = _readings(row)
    if readings < 2:
        return f"{row.mse:.5f}"
    d, trace = found.score.d, readings * (found.trace or 0.0)
    return f"{row.mse:.5f} ({floor_any(trace, found.score.at_most, d):.5f})"


if __name__ == "__main__":
    start(main)
