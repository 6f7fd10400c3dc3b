"""The bound against the attacks: Gaussian noise on ResNet-20's features, every attack of a suite beside the dFIL floor.

    python -m benchmarks.bound --weights cifar10_resnet20.safetensors --data npz:cifar10.npz [--suite standard]

"At least this leaks" beside "at most this leaks": no attack's mean squared error may lie below the floor. Writes
``docs/results/bound.md`` and the raw cards beside it; what is there already is not run again.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from splitveil.auditing import Subject, audit
from splitveil.cli.console import showing_progress
from splitveil.codecs import CODECS
from splitveil.cut import trace
from splitveil.data import load_data
from splitveil.defenses import DEFENSES
from splitveil.metrics.bounds.dfil import Certificate, certificate
from splitveil.metrics.bounds.prior import gaussian_score
from splitveil.models.loader import load_model
from splitveil.protection import protect
from splitveil.records import Card
from splitveil.report.words import NONE

MODEL = "resnet20"
SETTINGS = (("layer1", 0.5), ("layer1", 2.0), ("layer2", 0.5), ("layer2", 2.0))
"""Cut, and noise-to-signal ratio of the noise defence."""
PRIVATE, PROBED, PROBES, SCORED = 100, 64, 16, 4000


def measured(cut: str, sigma: float, args: argparse.Namespace) -> tuple[Card, Certificate]:
    """The attacks' card, kept, and the certificate."""
    data = load_data(args.data)
    loaded = load_model(MODEL, shape=data.shape, classes=len(data.classes), weights=args.weights)
    split = trace(loaded.model, torch.zeros(2, *data.shape)).split(cut)
    protected, _ = protect(split, DEFENSES.build(f"noise:sigma={sigma}"), CODECS.build("raw"), data, epochs=0)
    protected.eval()
    train = torch.from_numpy(data.train.x[:SCORED]).float() / 255
    test = torch.from_numpy(data.test.x[:PROBED]).float() / 255
    with torch.no_grad():
        noise = protected.defense.spread(protected.split.edge(test[:1]))
    assert noise is not None
    found = certificate(
        lambda x: protected.defense.mean(protected.split.edge(x)), test, noise.double(),
        score=gaussian_score(train), probes=PROBES, seed=0,
    )  # fmt: skip
    kept: Path = args.out / f"bound-{cut}-{sigma:g}-{args.suite}.json"
    if kept.exists():
        return Card.load(kept), found
    subject = Subject.of_split(protected, model=MODEL, weights=loaded.weights)
    subject = Subject(
        subject.model, subject.weights, subject.tap, subject.cuts, subject.configurations[-1:], subject.bundle
    )
    with tempfile.TemporaryDirectory() as folder:
        card = audit(subject, data, suite=args.suite, n=PRIVATE, samples=0, out=Path(folder)).card
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
        results = [(cut, sigma, *measured(cut, sigma, args)) for cut, sigma in SETTINGS]
    first, bound = results[0][2], results[0][3]
    attacks = list(dict.fromkeys(r.attack for _, _, card, _ in results for r in card.rows))
    lines = [
        "# The bound against the attacks",
        "",
        f"Made by `python -m benchmarks.bound`. {MODEL} on CIFAR-10 with the `noise` defence, not fine-tuned; suite "
        f"{first.suite}; mean squared error per element over {PRIVATE} private images, pixels in [0, 1]; seed 0.",
        f"The floor is the van Trees bound from dFIL over {PROBED} test images, {PROBES} probes each; the prior's "
        f"information: {bound.score.method}, blur {bound.score.smoothing:g}, from {bound.score.samples:,} images "
        f"(Tr S = {bound.score.trace:.3g}). The floor for unbiased adversaries is no bound for others.",
        f"Hardware: {first.hardware}. Code {first.versions['code']}, torch {first.versions['torch']}.",
        f"Raw cards: {', '.join(f'[{p.stem}]({p.name})' for p in sorted(args.out.glob('bound-*.json')))}.",
        "",
        "| cut, noise to signal | accuracy | floor, any adversary | floor, data unknown | floor, unbiased | "
        f"{' | '.join(attacks)} | least / floor |",
        "|---|---|---|---|---|" + "---|" * (len(attacks) + 1),
    ]
    for cut, sigma, card, found in results:
        errors = {r.attack: r.mse for r in card.rows}
        cells = [f"{errors[a]:.5f}" if a in errors else NONE for a in attacks]
        floor = found.floor or 0.0
        verdict = f"{min(errors.values()) / floor:.1f}" + ("" if min(errors.values()) >= floor else " **BEATEN**")
        lines.append(
            f"| {cut}, {sigma:g} | {next(iter(card.accuracies.values())):.3f} | {floor:.5f} | {found.surest:.5f} | "
            f"{found.unbiased:.5f} | {' | '.join(cells)} | {verdict} |"
        )
    text = "\n".join(lines) + "\n"
    (args.out / "bound.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
