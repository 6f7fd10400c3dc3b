"""``splitveil compare``: defences at the same accuracy, and what each leaks there."""

from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitveil.cli.reading import AcceleratorAsked, JudgeAdapt, SkipBroken
from splitveil.cli.working import ThreadsAsked, WorkersAsked

if TYPE_CHECKING:
    from splitveil.core.records import Comparison, Contender, Measured

UNTRUSTED = 3


def run(
    model: Annotated[str, typer.Argument(help="name of the zoo, timm:NAME, torchvision:NAME or PATH.py:FACTORY")],
    data: Annotated[
        str, typer.Option(help="digits, vehicles, npz:PATH, folder:PATH, cifar10 and others; see splitveil list data")
    ],
    at: Annotated[str, typer.Option(help="where to cut; see splitveil cuts MODEL")],
    defense: Annotated[
        list[str], typer.Option(help="NAME[:k=v,...], repeatable; a codec's name is quantisation alone")
    ],
    out: Annotated[Path, typer.Option(help="folder for the comparison, the page and everything behind them")],
    weights: Annotated[
        str | None, typer.Option(help="to start from: .safetensors, .pth, .ckpt, ...: FILE or FILE#KEY, or pretrained")
    ] = None,
    logits: Annotated[
        str | None, typer.Option(help="where the logits are in the answer: a key, a field or a place")
    ] = None,
    drop: Annotated[
        list[float] | None, typer.Option(help="budget in points of accuracy, repeatable; default 1 and 3")
    ] = None,
    codec: Annotated[str, typer.Option(help="NAME[:k=v,...]; see splitveil list codecs")] = "raw",
    suite: Annotated[str, typer.Option(help="smoke, standard or strong")] = "standard",
    attack: Annotated[list[str] | None, typer.Option(help="NAME[:k=v,...], repeatable; instead of a suite")] = None,
    knows: Annotated[
        str, typer.Option(help="white-box, black-box, query-free or grants such as aux,queries")
    ] = "white-box",
    n: Annotated[int, typer.Option("-n", min=1, help="private images to attack")] = 500,
    aux: Annotated[str | None, typer.Option(help="the adversary's images; default the rest of the test part")] = None,
    aux_n: Annotated[int | None, typer.Option(min=1, help="most images of the adversary; default the suite's")] = None,
    seeds: Annotated[str, typer.Option(help="each trains and audits anew; the first one tunes")] = "0,1,2",
    trials: Annotated[int, typer.Option(min=1, help="trainings that tune one defence to one budget")] = 6,
    epochs: Annotated[
        int | None,
        typer.Option(min=0, help="of every training, the undefended split's too; default 4, or what a defense needs"),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="peak learning rate; default 0.002, with --weights 0.0005")] = None,
    recipe: Annotated[
        str,
        typer.Option(help="NAME[:k=v,...] of how to train; see splitveil list recipes; --epochs and --lr go before"),
    ] = "usual",
    tune_n: Annotated[
        int | None,
        typer.Option(help="test images set aside to tune by; default half with --weights, else 0: training images"),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="NAME[:k=v,...], repeatable; beside MSE, PSNR and SSIM")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="an independent model that looks at the guesses: PA, PI")] = None,
    judge_weights: Annotated[str | None, typer.Option(help="of the judge, as --weights")] = None,
    judge_adapt: JudgeAdapt = False,
    accelerator: AcceleratorAsked = "auto",
    skip_broken: SkipBroken = False,
    workers: WorkersAsked = "1",
    threads: ThreadsAsked = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on where a killed run stopped")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Tune each defence to each accuracy budget, train it with every seed, audit it. Exit code 3: do not trust it."""
    import torch

    from splitveil.cli.audit import parse_seeds, read_judge, refuse_ungranted
    from splitveil.cli.console import err, print_json, showing_progress, tell, tell_doubts
    from splitveil.cli.console import out as screen
    from splitveil.core.records import Finishing, claim, resumable
    from splitveil.lab.accelerator import Accelerator
    from splitveil.lab.attacks.view import Knows
    from splitveil.lab.auditing.suites import custom_suite, find_suite
    from splitveil.lab.comparing import compare, epochs_for, without_tuning
    from splitveil.lab.cut import Split, trace
    from splitveil.lab.data import load_data
    from splitveil.lab.models.loader import load_model
    from splitveil.lab.recipe import Recipe, read_recipe, usual_rate
    from splitveil.report import check_extras, render_comparison, render_picture

    computing = Accelerator.chosen(accelerator)
    chosen = custom_suite(attack) if attack else find_suite(suite)
    granted = Knows.parse(knows)
    if attack:
        refuse_ungranted(attack, granted)
    usual = Recipe(epochs=epochs_for(defense, codec), lr=usual_rate(trained=bool(weights)))
    way = read_recipe(recipe, epochs=epochs, lr=lr, usual=usual)
    check_extras()
    claim(out, resume=resume)
    images = load_data(data, skip_broken=skip_broken)
    others = load_data(aux, skip_broken=skip_broken) if aux else None
    loaded = load_model(model, shape=images.shape, classes=len(images.classes), weights=weights, logits=logits)
    model = loaded.name
    tell([*images.remarks, *(others.remarks if others else ()), *loaded.remarks])
    if weights is None:
        err.print("warning: no --weights: every training starts from random ones", style="yellow")

    def fresh(seed: int) -> Split:
        again = load_model(model, shape=images.shape, classes=len(images.classes), weights=weights, seed=seed)
        return trace(again.model, torch.zeros(2, *images.shape)).split(at)

    kept = len(images.test) // 2 * bool(weights) if tune_n is None else tune_n
    images, tuning = without_tuning(images, kept)
    if epochs is None:
        told = f"{way.epochs} epochs for each training; --epochs changes it"
        (err if as_json else screen).print(told, highlight=False)
    finishing = Finishing(f"{out / 'comparison.json'}", f"run `splitveil report {out}` for the page")
    with showing_progress(), computing.used(), resumable(out):
        found = compare(
            fresh, images, model=model, weights=loaded.weights, defenses=defense, out=out, drops=drop or (1.0, 3.0),
            codec=codec, suite=chosen, knows=granted, n=n, aux=others, aux_n=aux_n,
            seeds=parse_seeds(seeds), trials=trials, epochs=way.epochs, lr=way.lr, recipe=recipe,
            tuning=tuning, metrics=metric or (), resume=resume,
            judge=read_judge(judge, judge_weights, images, adaptive=judge_adapt), workers=workers, threads=threads,
        )  # fmt: skip
        page, picture = out / "comparison.html", out / "comparison.svg"
        with finishing.writing(page):
            render_comparison(found, page)
        with finishing.writing(picture):
            render_picture(found, picture)
    if as_json:
        print_json(found.to_json())
    else:
        _show(found)
        print(f"report: {page}\npicture: {picture}")
    reasons = [f"{c.label}: {why}" for c in found.contenders if c.measured for why in c.measured.unreliable]
    tell_doubts(reasons)
    finishing.tell()
    if reasons:
        raise typer.Exit(UNTRUSTED)


def _show(found: "Comparison") -> None:
    from splitveil.cli.console import out, show_table

    out.print(
        f"{found.model} on {found.data}, cut at {found.cut}: {found.suite}, {found.private_n} private images, "
        f"seeds {', '.join(map(str, found.seeds))}",
        highlight=False,
    )
    out.print(found.threat_model, highlight=False)
    floors = [
        [f.attack, "no features" if f.free else "the undefended split's features", f"{f.psnr.mean:.2f}",
         f"{f.ssim.mean:.3f}"]
        for f in found.floors
    ]  # fmt: skip
    show_table("what an adversary guesses without inverting", ["floor", "from", "PSNR dB", "SSIM"], floors, left=2)
    headers = [
        "defense", "setting", "accuracy", "lost", "PSNR dB", "95 %", "SSIM", "95 %", "strongest", "edge MMAC", "edge k",
        "bytes", "epoch x", "",
    ]  # fmt: skip
    tables = {"undefended": [_cells(found.undefended)]}
    tables |= {f"within {drop:g} points": [_cells(c) for c in found.ranked(drop)] for drop in found.drops}
    told = [any(row[k] for rows in tables.values() for row in rows) for k in range(len(headers))]
    for title, rows in tables.items():
        shown = [list(compress(row, told)) for row in rows]
        show_table(title, list(compress(headers, told)), shown, left=sum(told[:2]))
    _show_further(found)
    for text in found.findings:
        out.print(text, highlight=False)
    for note in found.notes:
        out.print(f"note: {note}", highlight=False)


def _show_further(found: "Comparison") -> None:
    from splitveil.cli.console import show_table

    if not (further := found.further):
        return
    leaks = {True: "more leaks more", False: "less leaks more", None: ""}
    rows = [
        ["", "unit", *(f.unit for f in further.values())],
        ["", "", *(leaks[f.higher_leaks] for f in further.values())],
    ]
    for c in [found.undefended, *(c for drop in found.drops for c in found.ranked(drop))]:
        if m := c.measured:
            means = [f"{m.extra[name].mean:.3f}" if name in m.extra else "" for name in further]
            rows.append([c.label, "" if c.drop is None else f"within {c.drop:g}", *means])
    show_table("further metrics of the worst case by PSNR", ["defense", "", *further], rows, left=2)


def _lost(m: "Measured") -> str:
    from splitveil.cli.cards import span

    return f"{m.lost.mean:.2f}" + (f" ({span(m.paired.interval, 2)})" if m.paired else "")


def _cells(c: "Contender") -> list[str]:
    from splitveil.cli.cards import span
    from splitveil.core.registry import Spec

    setting = f"{c.knob}={c.value:g}" if c.value is not None else ""
    m = c.measured
    if m is None:
        return [
            c.label,
            setting,
            str(c.validated or f"{c.validation:.2%}"),
            *[""] * 10,
            f"misses it by {c.missing:.2f}",
        ]
    return [
        c.label, setting, str(m.tested or f"{m.accuracy.mean:.2%}"), _lost(m),
        f"{m.psnr.mean:.2f}", span(m.psnr.interval, 2), f"{m.ssim.mean:.3f}", span(m.ssim.interval, 3),
        Spec.parse(m.strongest.get("psnr", "")).short,
        f"{m.edge_macs / 1e6:.2f}", f"{m.edge_params / 1e3:.1f}", f"{m.payload_bytes:,}",
        f"{m.epoch_ratio:.2f}" if m.epoch_ratio is not None else "",
        ", ".join(
            ["do not trust"] * bool(m.unreliable) + ["not a defence"] * (not c.defends and c.drop is not None)
        ),
    ]  # fmt: skip
