"""The bound against the attacks: Gaussian noise on ResNet-20's features, every attack of a suite beside the dFIL floor.

    python -m benchmarks.bound --weights cifar10_resnet20.safetensors --data npz:cifar10.npz [--suite standard]

"At least this leaks" beside "at most this leaks". The bound holds for images that have a density: here CIFAR-10 at half
its contrast, blurred by a known noise, so that the prior's information is bounded and nothing about it is estimated. No
attack's mean squared error may lie below that floor. Beside them the images as they are, for which the number is an
estimate that an attack may beat. Writes ``docs/results/bound.md`` and the raw cards; what is there is not run again.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from splitveil.auditing import Subject, audit
from splitveil.cli.console import showing_progress
from splitveil.codecs import CODECS
from splitveil.cut import trace
from splitveil.data import Dataset, Images, load_data
from splitveil.defenses import DEFENSES
from splitveil.metrics.bounds.dfil import Certificate, certificate, floor_any
from splitveil.metrics.bounds.prior import gaussian_score
from splitveil.models.loader import load_model
from splitveil.protection import protect
from splitveil.records import Card, Row
from splitveil.registry import Spec
from splitveil.report.words import NONE

MODEL = "resnet20"
SETTINGS = (("layer1", 1.0, True), ("layer2", 1.0, True), ("layer1", 1.0, False))
"""Cut, noise-to-signal ratio of the noise defence, and whether images are faded and blurred."""
BLUR = 0.05
PRIVATE, AUX, PROBED, PROBES, SCORED = 100, 3000, 64, 16, 4000


def faded(images: Images) -> Images:
    """At half the contrast, so that a blur stays within [0, 1]."""
    return replace(images, x=(64 + 0.5 * images.x).round().astype(np.uint8))


def blurred(images: Images, seed: int) -> Images:
    """Images with a density."""
    noise = np.random.default_rng(seed).standard_normal(images.x.shape, dtype=np.float32)
    return replace(images, x=(images.x + 255 * BLUR * noise).round().clip(0, 255).astype(np.uint8))


def measured(cut: str, sigma: float, dense: bool, args: argparse.Namespace) -> tuple[Card, Certificate]:
    """The attacks' card, kept, and the certificate."""
    data = clear = load_data(args.data)
    if dense:
        clear = Dataset(f"{data.name}, half contrast", faded(data.train), faded(data.test), data.classes)
        data = Dataset(
            f"{clear.name}, blurred by {BLUR}", blurred(clear.train, 0), blurred(clear.test, 1), data.classes
        )
    loaded = load_model(MODEL, shape=data.shape, classes=len(data.classes), weights=args.weights)
    split = trace(loaded.model, torch.zeros(2, *data.shape)).split(cut)
    protected, _ = protect(split, DEFENSES.build(f"noise:sigma={sigma}"), CODECS.build("raw"), data, epochs=0)
    protected.eval()
    train = torch.from_numpy(clear.train.x[:SCORED]).float() / 255
    test = torch.from_numpy(clear.test.x[:PROBED]).float() / 255
    with torch.no_grad():
        noise = protected.defense.spread(protected.split.edge(test[:1]))
    assert noise is not None
    found = certificate(
        lambda x: protected.defense.mean(protected.split.edge(x)), test, noise.double(),
        score=gaussian_score(train, smoothing=BLUR), probes=PROBES, seed=0,
    )  # fmt: skip
    kept: Path = args.out / f"bound-{cut}-{sigma:g}-{'blurred' if dense else 'plain'}.json"
    if kept.exists():
        return Card.load(kept), found
    subject = Subject.of_split(protected, model=MODEL, weights=loaded.weights)
    subject = replace(subject, configurations=subject.configurations[-1:])
    with tempfile.TemporaryDirectory() as folder:
        card = audit(subject, data, suite=args.suite, n=PRIVATE, aux_n=AUX, samples=0, out=Path(folder)).card
    card.save(kept)
    return card, found


def main() -> None:
    """Measure every setting and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--suite", default="standard")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    with showing_progress():
        results = [(setting, *measured(*setting, args)) for setting in SETTINGS]
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
        f"Raw cards: {', '.join(f'[{p.stem}]({p.name})' for p in sorted(args.out.glob('bound-*.json')))}.",
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
    text = "\n".join(lines) + "\n"
    (args.out / "bound.md").write_text(text)
    print(text)


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
    main()
