"""He et al. 2019 (ACSAC), table 4, beside ours: their nets, their cuts, their adversaries.

    python -m benchmarks.he2019 --cifar npz:cifar10.npz --mnist npz:mnist.npz [--seeds 0] [--work DIR] [-n 100]

    python -m benchmarks.he2019 --page

Trains the six-convolution net on CIFAR-10 and LeNet-5 on MNIST, then audits conv11, ReLU22 and ReLU32, and conv1 and
ReLU2, with every adversary of the paper. Writes ``docs/results/he2019.md`` and its cards into the archive. Whatever
lies there or in DIR already is not done again.
"""

import argparse
import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.over_seeds import plus_minus
from benchmarks.page import Page, parsed, parser, start
from splitveil.cli.console import showing_progress
from splitveil.core.records import Card, Row
from splitveil.lab.attacks import ATTACKS
from splitveil.lab.attacks.view import PRESETS, Knows
from splitveil.lab.auditing import Subject, audit
from splitveil.lab.auditing.suites import custom_suite
from splitveil.lab.cut import trace
from splitveil.lab.data import Dataset, Images, load_data
from splitveil.lab.models.loader import load_model
from splitveil.lab.training import IndexBatches, fit

AUX = 4000
"""Images that the adversary holds; the paper gives it the whole training set (50,000 and 60,000)."""
MLE = "mle:steps=300,start=mean"
DECODER = "decoder:size=small,epochs=10,steps=600"
STRONGEST = f"mle:steps=150,start=[{DECODER}]"
SHADOW = "shadow:learn=queries,arch=same,via=mle,steps=200"
STEPS = ",steps={steps}"
"""Filled in by `Victim.attack`."""
FREE, FREE_OTHER = "shadow:learn=cloud,arch=same" + STEPS, "shadow:learn=cloud,arch=other" + STEPS


@dataclass(frozen=True, slots=True)
class Victim:
    """A net of the paper, what it is trained on, where it is cut, and how long a stand-in trains against its cloud."""

    model: str
    data: str
    cuts: tuple[str, ...]
    epochs: int
    lr: float
    flips: bool
    steps: int

    def attack(self, spec: str) -> str:
        """A spec of `AUDITS` or `LINES` for this net."""
        return spec.replace("{steps}", str(self.steps))


VICTIMS = (
    Victim("lenet5", "mnist", ("conv1", "ReLU2"), 3, 2e-3, flips=False, steps=1500),
    Victim("cnn6", "cifar", ("conv11", "ReLU22", "ReLU32"), 5, 1e-3, flips=True, steps=600),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the paper's table: which audit and attack of ours stands beside it, and its five PSNRs and SSIMs."""

    name: str
    audit: str
    attack: str
    paper: tuple[tuple[float, float], ...]


LINES = (
    Line("white box, rMLE", "none", MLE,
         ((39.69, 0.9969), (15.10, 0.5998), (37.59, 0.9960), (19.47, 0.6940), (13.38, 0.1625))),
    Line("inverse network, same set", "same", DECODER,
         ((39.64, 0.9887), (20.35, 0.7334), (49.88, 0.9993), (19.81, 0.6939), (15.42, 0.3124))),
    Line("inverse network, same distribution", "distribution", DECODER,
         ((40.72, 0.9950), (20.81, 0.8046), (49.02, 0.9992), (19.36, 0.6802), (13.95, 0.2196))),
    Line("inverse network, random set", "random", DECODER,
         ((14.76, 0.7188), (7.72, 0.4310), (48.59, 0.9996), (12.79, 0.2930), (12.37, 0.0440))),
    Line("shadow by queries, then rMLE", "distribution", SHADOW,
         ((39.67, 0.9968), (15.41, 0.6103), (28.67, 0.9766), (18.02, 0.6893), (12.61, 0.1145))),
    Line("query-free, same set, same net", "same", FREE,
         ((17.60, 0.7423), (9.61, 0.4981), (21.16, 0.9104), (12.74, 0.1752), (11.09, 0.0419))),
    Line("query-free, other set, same net", "distribution", FREE,
         ((21.53, 0.9121), (9.27, 0.4652), (21.45, 0.9145), (11.51, 0.1723), (11.98, 0.0102))),
    Line("query-free, same set, other net", "same", FREE_OTHER,
         ((12.59, 0.6430), (8.05, 0.3790), (17.55, 0.6344), (12.46, 0.2714), (10.68, 0.0247))),
    Line("query-free, other set, other net", "distribution", FREE_OTHER,
         ((17.86, 0.6952), (8.03, 0.3226), (13.06, 0.1553), (11.30, 0.0467), (11.47, 0.0793))),
    Line("ours: mle from the inverse network, same distribution", "distribution", STRONGEST, ()),
)  # fmt: skip
AUDITS = {
    "none": (Knows.WEIGHTS | Knows.DEFENSE, [MLE]),
    "same": (PRESETS["white-box"], [DECODER, FREE, FREE_OTHER]),
    "distribution": (PRESETS["white-box"], [DECODER, STRONGEST, SHADOW, FREE, FREE_OTHER]),
    "random": (PRESETS["white-box"], [DECODER]),
}


class Classifier(nn.Module):
    """Cross-entropy of a net on uint8 images."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.net(x.float() / 255).float(), y)


def trained(victim: Victim, data: Dataset, seed: int, work: Path) -> nn.Module:
    """The victim's net, trained or read from `work`."""
    net = load_model(victim.model, shape=data.shape, classes=len(data.classes), weights=None, seed=seed).model
    path = work / f"{victim.model}-seed{seed}.safetensors"
    if path.exists():
        net.load_state_dict(load_file(path))
        return net.eval()
    x, y = torch.from_numpy(data.train.x), torch.from_numpy(data.train.y)

    def read(index: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        images = x[index]
        if victim.flips:
            mirrored = torch.rand(len(index), generator=draws) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return images.contiguous(memory_format=torch.channels_last), y[index]

    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    checkpoint = work / f"{victim.model}-seed{seed}.training.safetensors"
    fit(
        Classifier(net), IndexBatches(len(x), 64, read), epochs=victim.epochs, lr=victim.lr, weight_decay=1e-4,
        seed=seed, checkpoint=checkpoint, resume=True, what=f"training {victim.model}",
    )  # fmt: skip
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, path)
    return net.eval()


def others(kind: str, data: Dataset, seed: int) -> Dataset | None:
    """The adversary's images: the victim's training set, noise, or None for other test images."""
    draws = np.random.default_rng([seed, 7])
    if kind == "random":
        images = Images(blobs(data.shape, draws), np.zeros(AUX, dtype=np.int64))
        return Dataset("random pixels", images, images.take(np.arange(1)), ("noise",))
    if kind == "same":
        some = data.train.take(draws.permutation(len(data.train))[:AUX])
        return Dataset(f"the training set of {data.name}", some, some.take(np.arange(1)), data.classes)
    return None


def blobs(shape: tuple[int, int, int], draws: np.random.Generator) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """Images that no camera took: noise of random coarseness, contrast and brightness, half of it in two tones."""
    channels, height, width = shape
    out = np.empty((AUX, *shape), dtype=np.uint8)
    for i in range(AUX):
        side = int(draws.choice([2, 3, 4, 6, 8, 12, height]))
        coarse = torch.from_numpy(draws.random((1, channels, side, side), dtype=np.float32))
        x = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)[0].numpy()
        if draws.random() < 0.5:
            x = (x > draws.random()).astype(np.float32)
        low, high = np.sort(draws.random(2))
        out[i] = np.round(255 * (low + (high - low) * x))
    return out


def audited(victim: Victim, data: Dataset, kind: str, seed: int, n: int, work: Path) -> Card:
    """One audit."""
    net = trained(victim, data, seed, work)
    subject = Subject.of_model(
        trace(net, torch.zeros(2, *data.shape)), victim.cuts, model=victim.model, weights=f"trained here, seed {seed}"
    )
    knows, attacks = AUDITS[kind]
    suite = custom_suite([victim.attack(spec) for spec in attacks])
    return audit(
        subject, data, aux=others(kind, data, seed), aux_n=AUX, suite=suite, knows=knows, n=n, seed=seed, samples=0,
        out=work / f"{victim.model}-{kind}-seed{seed}", resume=True,
    ).card  # fmt: skip


def cell(rows: list[Row], paper: tuple[float, float] | None) -> str:
    """Ours with the interval, the paper's, and the difference."""
    psnr, ssim = statistics.mean(r.psnr for r in rows), statistics.mean(r.ssim for r in rows)
    ours = f"{plus_minus([r.psnr for r in rows], images=rows[0].psnr_interval)} / {ssim:.3f}"
    if paper is None:
        return ours
    gap = psnr - paper[0]
    return (
        f"{ours}; {paper[0]:.2f} / {paper[1]:.3f} ({'**' if gap < -0.5 else ''}{gap:+.1f}{'**' if gap < -0.5 else ''})"
    )


def text(cards: dict[tuple[str, str], list[Card]], records: str) -> str:
    """The Markdown page of the cards of each net and kind of images; `records` links to them."""
    columns = [(v, cut) for v in VICTIMS for cut in v.cuts]
    first = next(iter(cards.values()))[0]
    seeds = ",".join(str(c.seed) for c in next(iter(cards.values())))
    accuracies = [
        f"{v.model} {c.task_accuracy:.4f} (seed {c.seed}, {v.epochs} epochs)"
        for v in VICTIMS for c in cards[v.model, next(iter(AUDITS))]
    ]  # fmt: skip
    codes = dict.fromkeys(c.versions["code"] for several in cards.values() for c in several)
    lines = [
        "# He et al. 2019, table 4, beside ours",
        "",
        "Made by `python -m benchmarks.he2019`. A cell is ours, PSNR dB [95 % interval] / SSIM; then the paper's; then "
        "the difference in dB, bold where ours is more than 0.5 dB weaker.",
        f"Nets trained here: {'; '.join(accuracies)}. {first.private_n} private test images, {AUX:,} images of the "
        f"adversary (the paper: all 50,000 or 60,000); seeds {seeds}; intervals are bootstrapped over images with "
        "one seed, over seeds with several.",
        f"Hardware: {first.hardware}. Code {', '.join(codes)}, torch {first.versions['torch']}.",
        "Scaled down from the paper: epochs of the victims, the adversary's images. Where the paper is silent "
        "(number of private images, the filters of LeNet-5, the range of the random set) the choice is ours.",
        f"Ours: `{MLE}` without any image of its own; `{DECODER}`; `{SHADOW}`; `{FREE.removesuffix(STEPS)}`; "
        f"`{FREE_OTHER.removesuffix(STEPS)}`; `{STRONGEST}`; steps of a query-free stand-in: "
        f"{', '.join(f'{v.steps:,} against {v.model}' for v in VICTIMS)}.",
        f"Raw cards: {records}.",
        "",
        "| adversary | " + " | ".join(f"{v.model} {cut}" for v, cut in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    best: dict[str, float] = {}
    for line in LINES:
        cells = []
        for i, (victim, cut) in enumerate(columns):
            attack = repr(ATTACKS.build(victim.attack(line.attack)))
            rows = [row for card in cards[victim.model, line.audit] for row in card.rows
                    if row.cut == cut and f"{row.attack}:{row.options}" == attack]  # fmt: skip
            cells.append(cell(rows, line.paper[i] if line.paper else None) if rows else "not run")
            if rows:
                best[cut] = max(best.get(cut, 0.0), statistics.mean(r.psnr for r in rows))
        lines.append(f"| {line.name} | {' | '.join(cells)} |")
    strongest = [
        f"{best[cut]:.2f}; {max(li.paper[i][0] for li in LINES if li.paper):.2f} "
        f"({best[cut] - max(li.paper[i][0] for li in LINES if li.paper):+.1f})"
        for i, (_, cut) in enumerate(columns)
    ]
    lines.append(f"| **strongest; the paper's strongest** | {' | '.join(strongest)} |")
    return "\n".join(lines) + "\n"


def measure(page: Page, args: argparse.Namespace) -> None:
    """Train and audit whatever the archive does not hold."""
    args.work.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    for victim in VICTIMS:
        data = load_data(getattr(args, victim.data))
        for seed in map(int, args.seeds.split(",")):
            for kind in AUDITS:
                make = partial(audited, victim, data, kind, seed, args.n, args.work)
                page.archive.kept(Card, f"{victim.model}-{kind}-seed{seed}", make)
                print(f"{victim.model} {kind} seed {seed}: {time.perf_counter() - begun:.0f} s so far", flush=True)


def main() -> None:
    """Train, audit, and write the table."""
    asked = parser(__doc__)
    asked.add_argument("--cifar")
    asked.add_argument("--mnist")
    asked.add_argument("--seeds", default="0")
    asked.add_argument("-n", type=int, default=100)
    asked.add_argument("--work", type=Path, default=Path("runs/he2019"))
    args = parsed(asked, "cifar", "mnist")
    page = Page("he2019", args.out)
    if not args.page:
        with showing_progress():
            measure(page, args)
    kinds = [(v.model, kind) for v in VICTIMS for kind in AUDITS]
    page.publish(text({(m, k): list(page.records(Card, f"{m}-{k}-seed").values()) for m, k in kinds}, page.link))


if __name__ == "__main__":
    start(main)
