"""Whether an audit says the same whatever lossless map follows the edge half: ResNet-20 on CIFAR-10.

    python -m benchmarks.invariance --weights cifar10_resnet20.safetensors --data npz:cifar10.npz
        [--maps 40] [--cut layer2] [--n 100] [--seed 0] [--attack SPEC ...]
    python -m benchmarks.invariance --page

Maps are drawn from the seed, one family of `benchmarks.lossless` after another; each is undone before the cloud
half, so that no answer changes. Two seeds of the same audit without a map say how far apart numbers lie anyway.
Writes ``docs/results/invariance.md`` and its cards into the archive; what is there already is not run again.
"""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.lossless import EXACT, FAMILIES, NEVER_FLAGGED, Lossless, draw
from benchmarks.net import load_net
from benchmarks.page import Page, parsed, parser, start
from splitveil.cli.console import showing_progress
from splitveil.core.records import Card, Doubt, Row, worst_case
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.cut import Split, halves
from splitveil.lab.data import Dataset, load_data
from splitveil.lab.defenses.base import Protected
from splitveil.lab.defenses.none import Undefended
from splitveil.wire.codecs import CODECS

DECODER = "decoder:size=small,epochs=6,steps=600"
ATTACKS = ("dual", "canonical:attack=linear", f"canonical:attack=[{DECODER}]",
           f"canonical:attack=[mle:steps=150,start=[{DECODER}]]")  # fmt: skip
DB, SSIM = 0.5, 0.01
"""How far a worst case may move, unless two seeds lie farther apart."""
LIKE = 256
"""Images whose features say what maps are drawn for."""
PLAIN, AGAIN = "none-seed0", "none-seed1"
SAMPLE = ("few images", "near-duplicates", "overlap", "barely trained")
"""Doubts about images or nets, not about maps."""


def drawn(index: int, z: Tensor, seed: int) -> Lossless:
    """The map of that number: families in turn, numbers fresh."""
    family = list(FAMILIES)[index % len(FAMILIES)]
    found = draw(family, z, seed * 10_000 + index)
    if found.loss(z) > EXACT:
        return drawn(index + len(FAMILIES) * 100, z, seed)
    return found


def followed(split: Split, found: Lossless | None) -> Split:
    """The halves with the map between them, and its inverse."""
    if found is None:
        return split
    like = torch.zeros(2, *split.image)
    return halves(found.edge(split.edge), found.cloud(split.cloud), like)


def audited(split: Split, data: Dataset, attacks: Sequence[str], n: int, seed: int, name: str) -> Card:
    """One audit; `name` stands in the card."""
    protected = Protected(split, Undefended(), CODECS.build("raw"))
    subject = Subject.of_split(protected, model=name, weights="see the page")
    with tempfile.TemporaryDirectory() as folder:
        return audit(
            subject, data, suite=custom_suite(list(attacks)), n=n, seed=seed, samples=0, out=Path(folder)
        ).card  # fmt: skip


def worst(card: Card) -> Row:
    """The worst case by PSNR."""
    return next(row for row in card.rows if row.attack == worst_case("psnr"))


def flags(card: Card) -> list[str]:
    """Kinds of doubt that speak of maps, of any row."""
    kinds = (Doubt(why).kind for row in card.rows for why in row.unreliable)
    return sorted({kind for kind in kinds if kind not in SAMPLE})


def allowed(plain: Card, again: Card) -> tuple[float, float]:
    """By how much PSNR and SSIM may move."""
    a, b = worst(plain), worst(again)
    return max(DB, abs(a.psnr - b.psnr)), max(SSIM, abs(a.ssim - b.ssim))


def moved(plain: Card, card: Card) -> tuple[float, float]:
    """PSNR and SSIM of the worst case under a map, less those without one."""
    return worst(card).psnr - worst(plain).psnr, worst(card).ssim - worst(plain).ssim


def fallen(plain: Card, again: Card, card: Card) -> bool:
    """Whether the worst case moved by more than it may."""
    return any(abs(by) > most for by, most in zip(moved(plain, card), allowed(plain, again), strict=True))


def text(cards: dict[str, Card], records: str) -> str:
    """The Markdown page; `records` links to the cards."""
    plain, again = cards[PLAIN], cards[AGAIN]
    limits = allowed(plain, again)
    found = {name: card for name, card in cards.items() if name not in (PLAIN, AGAIN)}
    off = [name for name, card in found.items() if fallen(plain, again, card)]
    flagged = [name for name, card in found.items() if flags(card)]
    silent = [name for name in off if name not in flagged]
    wrong = [name for name in flagged if name.rpartition("-")[0] in NEVER_FLAGGED]
    attacks = dict.fromkeys(f"{r.attack}:{r.options}" if r.options else r.attack for r in plain.rows if r.evidence)
    lines = [
        "# What lossless maps of the features change in an audit",
        "",
        f"Made by `python -m benchmarks.invariance --maps {len(found)}`. {plain.model}, {plain.rows[0].n} private "
        f"images, {plain.aux_n:,} of the adversary; worst case by PSNR over "
        f"{', '.join(f'`{a}`' for a in attacks)} and floors.",
        f"Without a map: {worst(plain).psnr:.2f} dB / {worst(plain).ssim:.3f}, with another seed "
        f"{worst(again).psnr:.2f} dB / {worst(again).ssim:.3f}; so {limits[0]:.2f} dB and {limits[1]:.3f} are allowed. "
        f"Moved farther: {len(off)} of {len(found)} ({len(silent)} without a flag); flagged: {len(flagged)}, of those "
        f"families that never may be {len(wrong)}.",
        f"Hardware: {plain.hardware}. Code {plain.versions['code']}, torch {plain.versions['torch']}.",
        f"Raw cards: {records}.",
        "",
        "| family | map | PSNR dB | moved | SSIM | moved | flag |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, card in found.items():
        by, row = moved(plain, card), worst(card)
        mark = " **" if fallen(plain, again, card) else ""
        lines.append(
            f"| {name.rpartition('-')[0]} | {card.model.partition(': ')[2]} | {row.psnr:.2f} | {by[0]:+.2f}{mark} | "
            f"{row.ssim:.3f} | {by[1]:+.3f} | {', '.join(flags(card)) or 'none'} |"
        )
    return "\n".join(lines) + "\n"


def measure(page: Page, args: object, weights: Path, spec: str) -> None:
    """Run the audits that the archive does not hold."""
    maps, cut, n, seed, attacks = (getattr(args, key) for key in ("maps", "cut", "n", "seed", "attack"))
    data = load_data(spec)
    split = load_net("resnet20", data, weights).traced.split(cut)
    name, attacks = f"ResNet-20 at {cut}", attacks or ATTACKS
    for k, key in enumerate((PLAIN, AGAIN)):
        page.archive.kept(Card, key, partial(audited, split, data, attacks, n, seed + k, name))
    z = like(split, data)
    for index in range(maps):
        found = drawn(index, z, seed)
        make = partial(audited, followed(split, found), data, attacks, n, seed, f"{name}: {found.text}")
        page.archive.kept(Card, f"{found.family}-{index}", make)


def like(split: Split, data: Dataset) -> Tensor:
    """Features of training images, for which maps are drawn."""
    edge: nn.Module = split.edge.eval()
    with torch.no_grad():
        z: Tensor = edge(torch.from_numpy(data.train.x[:LIKE]).float() / 255)
    return z


def main() -> None:
    """Audit every map and write the table."""
    asked = parser(__doc__)
    asked.add_argument("--weights", type=Path)
    asked.add_argument("--data")
    asked.add_argument("--maps", type=int, default=40)
    asked.add_argument("--cut", default="layer2")
    asked.add_argument("--n", type=int, default=100)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--attack", action="append")
    args = parsed(asked, "weights", "data")
    page = Page("invariance", args.out)
    if not args.page:
        with showing_progress():
            measure(page, args, args.weights, args.data)
    page.publish(text(page.records(Card), page.link))


if __name__ == "__main__":
    start(main)
