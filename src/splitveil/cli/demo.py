"""``splitveil demo``: the whole way on real handwritten digits, offline, in three minutes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from splitveil.core.records import Card
    from splitveil.lab.data import Dataset
    from splitveil.wire.bundle import Bundle

MODEL, DATA, EARLY, LATE = "small", "digits", "relu1", "relu3"
DEFENSE, CODEC = "noise:sigma=1.0", "uniform:bits=8"
PRIVATE, ASKED = 200, 64


def run(
    out: Annotated[Path, typer.Option(help="folder for everything that the demo makes")] = Path("splitveil-demo"),
) -> None:
    """Train a small net, list its cuts, audit an early and a late one without and with a defence, serve, query."""
    import time

    import torch

    from splitveil.cli.console import showing_progress
    from splitveil.core.errors import InputError
    from splitveil.lab.auditing import Subject, audit
    from splitveil.lab.cut import trace
    from splitveil.lab.data import load_data
    from splitveil.lab.export import save
    from splitveil.lab.models.loader import load_model, save_weights
    from splitveil.lab.protection import protect, right_of, tested
    from splitveil.report import render, samples_picture
    from splitveil.wire.bundle import AUDITED, with_card

    begun = time.perf_counter()
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty; give another --out.")
    out.mkdir(parents=True, exist_ok=True)
    data = load_data(DATA)
    example = torch.zeros(2, *data.shape)
    model = load_model(MODEL, shape=data.shape, classes=len(data.classes), weights=None).model
    with showing_progress():
        _say(f"1. train {MODEL!r} on {len(data.train):,} real handwritten digits")
        halves, _ = protect(trace(model, example).split(EARLY), "none", "raw", data, epochs=15)
        model.load_state_dict(halves.split.edge.state_dict() | halves.split.cloud.state_dict())
        save_weights(model, out / "model.safetensors")
        _say(f"   {tested(right_of(halves, data.test))} of {len(data.test):,} test images right (95 %)")
        traced = trace(model, example)
        _say(f"2. its legal cuts: {', '.join(c.name for c in traced.cuts())}")
        audits, cards = [], []
        for step, at in ((3, EARLY), (4, LATE)):
            _say(f"{step}. cut at {at}, defend with {DEFENSE} and {CODEC}, write the bundle, attack the halves and it")
            protected, _ = protect(traced.split(at), DEFENSE, CODEC, data, epochs=15, lr=1e-3)
            bundle = save(
                protected, out / f"bundle-{at}", name=f"digits-{at}", model_spec=MODEL, image_shape=data.shape,
                classes=data.classes, tested=tested(right_of(protected, data.test)), picture=data.picture,
            )  # fmt: skip
            subject = Subject.of_split(
                protected, model=MODEL, weights=f"{AUDITED}{bundle.manifest.contract[:12]}", bundle=bundle.manifest.name
            )
            audits.append(out / f"audit-{at}")
            cards.append(audit(subject, data, suite="smoke", n=PRIVATE, out=audits[-1]).card)
            bundle = with_card(bundle, cards[-1])
        for folder in audits:
            samples_picture(folder, folder / "samples.png")
        page = render(audits, out / "report.html")
    _say(f"5. serve {bundle.folder} on loopback and ask it {ASKED} test images, with no torch on either side")
    _say(f"   {_serve_and_ask(bundle, data)}")
    _show(cards)
    _say(f"report: {page}   ({time.perf_counter() - begun:.0f} s)")


def _say(line: str) -> None:
    from splitveil.cli.console import out

    out.print(line, highlight=False, soft_wrap=True)


def _serve_and_ask(bundle: "Bundle", data: "Dataset") -> str:
    """Start the cloud half as its own process, send features from the edge half, compare with the local halves."""
    import subprocess
    import sys
    import time

    import numpy as np

    from splitveil.core.errors import LinkError
    from splitveil.core.records import Accuracy
    from splitveil.device import Edge
    from splitveil.wire.engine import load_cloud

    x, y = data.test.x[:ASKED], data.test.y[:ASKED]
    command = [sys.executable, "-m", "splitveil", "serve", str(bundle.folder), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline() if server.stdout else ""
        if not line:
            raise LinkError("the server did not start; run splitveil serve by hand to see why.")
        with Edge(bundle, line.rsplit(" ", 1)[-1].strip()) as edge:
            codes = edge.features(x)
            start = time.perf_counter()
            logits = edge.send(codes)
            spent = time.perf_counter() - start
            local = load_cloud(bundle).run({bundle.manifest.features.name: codes})
            right = Accuracy.of(int((logits.argmax(1) == y).sum()), len(y))
            return (
                f"{right} right (95 %), {edge.bytes_per_image} bytes and "
                f"{1e3 * spent / len(x):.2f} ms an image, "
                f"largest difference to the local model {np.abs(logits - local).max():.1e}"
            )
    finally:
        server.terminate()
        server.wait(10)


def _show(cards: "list[Card]") -> None:
    """One line for each configuration: what the best guess without inverting gets, and what attacks get."""
    from splitveil.cli.console import show_table
    from splitveil.core.records import Role
    from splitveil.report.configuration import BARE

    rows = []
    for card in cards:
        for place in card.places:
            own = card.at(place)
            floor = max((r for r in own if r.role is Role.FLOOR), key=lambda r: r.ssim)
            by, worst = {r.attack: r for r in own}, next(r for r in own if r.chosen_by == "ssim")
            shown = [floor, by["decoder"], by["mle"], worst]
            accuracy = str(card.tested[place.label])
            cut, defense, codec = place
            means = [f"{r.psnr:.1f} / {r.ssim:.2f}" for r in shown]
            rows.append([cut, BARE if defense == "none" else defense, codec, accuracy, *means])
    show_table(
        "what the cloud recovers: PSNR dB / SSIM",
        ["cut", "defense", "codec", "accuracy", "best floor", "decoder", "mle", "worst case"],
        rows,
        left=3,
    )
