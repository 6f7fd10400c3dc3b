"""``splitveil audit``: attack the features at each cut and report what leaks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from splitveil.auditing import Subject
    from splitveil.cut import Traced
    from splitveil.data import Dataset
    from splitveil.records import Card

UNTRUSTED = 3


def run(
    target: Annotated[str, typer.Argument(metavar="MODEL|BUNDLE", help="a model as for cuts, or a bundle's folder")],
    data: Annotated[str, typer.Option(help="digits, npz:PATH, folder:PATH, mnist, fashion-mnist, cifar10, cifar100")],
    out: Annotated[Path, typer.Option(help="folder for the card, the report and everything behind them")],
    at: Annotated[str | None, typer.Option(help="CUT,CUT,... or all; default four spread over the depth")] = None,
    weights: Annotated[Path | None, typer.Option(help=".safetensors of the trained model")] = None,
    aux: Annotated[str | None, typer.Option(help="the adversary's images; default the rest of the test part")] = None,
    suite: Annotated[str, typer.Option(help="smoke, standard or strong")] = "standard",
    attack: Annotated[list[str] | None, typer.Option(help="NAME[:k=v,...], repeatable; instead of a suite")] = None,
    knows: Annotated[
        str, typer.Option(help="white-box, black-box, query-free or grants such as aux,queries")
    ] = "white-box",
    n: Annotated[int, typer.Option("-n", min=1, help="private images to attack")] = 500,
    seed: Annotated[int, typer.Option(help="of every draw")] = 0,
    samples: Annotated[int, typer.Option(min=0, help="private images shown in the report; 0 keeps no picture")] = 8,
    resume: Annotated[bool, typer.Option("--resume", help="go on where a killed run stopped")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Run the attacks at each cut, floors first, and write card, pictures and report. Exit code 3: do not trust it."""
    from splitveil.attacks.view import Knows
    from splitveil.auditing import audit
    from splitveil.auditing.suites import custom_suite, find_suite
    from splitveil.cli.console import err, showing_progress
    from splitveil.data import load_data
    from splitveil.report import render, samples_picture

    chosen = custom_suite(attack) if attack else find_suite(suite)
    granted = Knows.parse(knows)
    images = load_data(data)
    others = load_data(aux) if aux else None
    subject = _subject(target, at, weights, images, seed)
    with showing_progress():
        found = audit(
            subject, images, aux=others, suite=chosen, knows=granted, n=n, seed=seed, samples=samples, out=out,
            resume=resume,
        )  # fmt: skip
        if samples:
            samples_picture(out, out / "samples.png")
        page = render([out], out / "report.html")
    if subject.bundle:
        from splitveil.bundle import Bundle, with_card

        with_card(Bundle.load(Path(target)), found.card)
    if as_json:
        print(found.card.to_json())
    else:
        show_card(found.card)
        print(f"report: {page}")
    for reason in found.card.unreliable:
        err.print(f"do not trust: {reason}", style="red")
    if found.card.unreliable:
        raise typer.Exit(UNTRUSTED)


def _subject(target: str, at: str | None, weights: Path | None, images: "Dataset", seed: int) -> "Subject":
    import torch

    from splitveil.auditing import Subject
    from splitveil.cli.console import err
    from splitveil.cut import trace
    from splitveil.errors import InputError
    from splitveil.models.loader import load_model

    if Path(target).is_dir():
        from splitveil.bundle import Bundle
        from splitveil.restoring import restore

        bundle = Bundle.load(Path(target))
        manifest = bundle.manifest
        if at not in (None, manifest.cut.name) or weights:
            raise InputError(
                f"{target} is a bundle with its own weights, cut at {manifest.cut.name}; leave --at and --weights out."
            )
        if images.shape != manifest.image_shape:
            raise InputError(
                f"{target} takes {manifest.image_shape} images, got {images.shape}; add ?size= or ?channels= to --data."
            )
        return Subject.of_split(
            restore(bundle), model=manifest.model, weights=f"bundle {manifest.contract[:12]}", bundle=manifest.name
        )
    loaded = load_model(target, shape=images.shape, classes=len(images.classes), weights=weights, seed=seed)
    if weights is None:
        err.print("warning: no --weights: this audits an untrained model", style="yellow")
    traced = trace(loaded.model, torch.zeros(2, *images.shape))
    return Subject.of_model(traced, _cuts(traced, at), model=target, weights=loaded.weights)


def _cuts(traced: "Traced", at: str | None) -> list[str]:
    names = [c.name for c in traced.cuts()]
    if at == "all":
        return names
    if at is not None:
        return [name.strip() for name in at.split(",") if name.strip()]
    last = len(names) - 1
    return list(dict.fromkeys(names[round(last * k / 4)] for k in range(1, 5)))


def show_card(card: "Card") -> None:
    """The card on stdout: one table for each cut, defence and codec."""
    from splitveil.cli.console import out, show_table

    name = card.bundle or card.model
    out.print(f"{name} on {card.data}: {card.suite}, {card.private_n} private images", highlight=False)
    out.print(card.threat_model, highlight=False)
    for key in dict.fromkeys((r.cut, r.defense, r.codec) for r in card.rows):
        accuracy = card.accuracies.get(" | ".join(key), card.task_accuracy)
        rows = [
            [
                r.attack, f"{r.psnr:.2f}", f"{r.psnr_worst5:.2f}", f"{r.ssim:.3f}", f"{r.ssim_worst5:.3f}",
                f"{r.mse:.4f}", f"{r.seconds:.1f}", "do not trust" if r.unreliable else "",
            ]
            for r in card.rows
            if (r.cut, r.defense, r.codec) == key
        ]  # fmt: skip
        show_table(
            f"{key[0]}, defense {key[1]}, codec {key[2]}: task accuracy {accuracy:.2%}",
            ["attack", "PSNR dB", "worst 5 %", "SSIM", "worst 5 %", "MSE", "s", ""],
            rows,
        )
