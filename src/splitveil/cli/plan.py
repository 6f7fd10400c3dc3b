"""``splitveil plan``: where to cut and what to defend with, under budgets, attacked afresh."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitveil.cli.reading import AcceleratorAsked, SkipBroken
from splitveil.cli.working import ThreadsAsked, WorkersAsked

if TYPE_CHECKING:
    from splitveil.core.records import Budget, Choice, Figure, Plan
    from splitveil.lab.cut import Traced

INFEASIBLE, UNDECIDED = 4, 5
SHOWN = 15


class Detector(StrEnum):
    """What counts as the drop where the zone begins."""

    lasting = "lasting"
    published = "published"


def run(
    model: Annotated[str, typer.Argument(help="name of the zoo, timm:NAME, torchvision:NAME or PATH.py:FACTORY")],
    data: Annotated[
        str, typer.Option(help="digits, vehicles, npz:PATH, folder:PATH, cifar10 and others; see splitveil list data")
    ],
    out: Annotated[Path, typer.Option(help="folder for plan.json, plan.html, the bundle and everything behind them")],
    weights: Annotated[
        str | None, typer.Option(help=".safetensors, .pth, .ckpt, ...: FILE or FILE#KEY, or pretrained")
    ] = None,
    logits: Annotated[
        str | None, typer.Option(help="where the logits are in the answer: a key, a field or a place")
    ] = None,
    max_edge_macs: Annotated[str | None, typer.Option(help="on the device, for one sample: 50M")] = None,
    max_edge_bytes: Annotated[str | None, typer.Option(help="stored weights of the edge half: 2MB")] = None,
    max_edge_memory: Annotated[str | None, typer.Option(help="peak of live activations: 500KB")] = None,
    max_payload: Annotated[str | None, typer.Option(help="bytes that cross for one sample: 4KB")] = None,
    max_latency: Annotated[
        str | None, typer.Option(help="device, link and server: 50ms; with --device, --link")
    ] = None,
    max_accuracy_drop: Annotated[float | None, typer.Option(help="points below the undefended model")] = None,
    max_ssim: Annotated[float | None, typer.Option(help="worst case over the attacks, mean over images")] = None,
    max_ssim_worst: Annotated[float | None, typer.Option(help="the same, of the 5 % that leak most")] = None,
    max_psnr: Annotated[float | None, typer.Option(help="dB, worst case over the attacks, mean over images")] = None,
    max_psnr_worst: Annotated[float | None, typer.Option(help="the same, of the 5 % that leak most")] = None,
    device: Annotated[str | None, typer.Option(help="pi4, pi5, phone, jetson, mcu, here or device.json")] = None,
    link: Annotated[str | None, typer.Option(help="3g, lte, wifi, 5g, or 10M/50ms/1%")] = None,
    server: Annotated[str | None, typer.Option(help="as --device; default this machine")] = None,
    cuts: Annotated[str | None, typer.Option(help="names with commas, or all; default six over the depth")] = None,
    defense: Annotated[list[str] | None, typer.Option(help="NAME[:k=v,...], repeatable; see splitveil list")] = None,
    codec: Annotated[list[str] | None, typer.Option(help="NAME[:k=v,...], repeatable; see splitveil list")] = None,
    suite: Annotated[str, typer.Option(help="of the fresh audit: smoke, standard or strong")] = "smoke",
    attack: Annotated[
        list[str] | None, typer.Option(help="NAME[:k=v,...], repeatable; instead of a suite, in the fresh audit")
    ] = None,
    knows: Annotated[
        str, typer.Option(help="white-box, black-box, query-free or grants such as aux,queries")
    ] = "white-box",
    n: Annotated[int, typer.Option("-n", min=1, help="private images of every audit")] = 200,
    held_n: Annotated[
        int | None, typer.Option(min=30, help="test images for the search alone; default half, at most 2,000")
    ] = None,
    train_n: Annotated[int, typer.Option(min=10, help="training images for a defence, at most")] = 10_000,
    epochs: Annotated[
        int | None, typer.Option(min=0, help="of a defence's training; default what it needs, 2 where it needs none")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="peak learning rate; default 0.0005")] = None,
    audits: Annotated[int | None, typer.Option(min=1, help="choices measured at most; default a quarter")] = None,
    minutes: Annotated[float | None, typer.Option(help="in all; the best plan so far when they are over")] = None,
    zone: Annotated[
        Detector,
        typer.Option(help="where the zone begins: a drop that lasts, or the largest, as published"),
    ] = Detector.lasting,
    seed: Annotated[
        int, typer.Option(min=0, help="of training and the search's attacks; fresh ones have the next")
    ] = 0,
    accelerator: AcceleratorAsked = "auto",
    skip_broken: SkipBroken = False,
    workers: WorkersAsked = "1",
    threads: ThreadsAsked = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on where a killed run stopped")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Search cuts, defences and codecs under budgets, and attack the choice afresh.

    Exit code 4: nothing keeps the budgets. 5: the time ran out before anything could be recommended.
    """
    import torch

    from splitveil.cli.audit import refuse_ungranted
    from splitveil.cli.console import err, print_json, showing_progress, tell
    from splitveil.core.records import Budget, Finishing, claim, resumable
    from splitveil.device.profiling import find_device, find_link
    from splitveil.lab.accelerator import Accelerator
    from splitveil.lab.attacks.view import Knows
    from splitveil.lab.auditing.suites import custom_suite, find_suite
    from splitveil.lab.cut import trace
    from splitveil.lab.data import load_data
    from splitveil.lab.models.loader import load_model
    from splitveil.lab.planning import plan
    from splitveil.lab.planning.space import CODECS_TRIED, DEFENSES
    from splitveil.lab.recipe import usual_rate
    from splitveil.report import check_extras, render_plan

    computing = Accelerator.chosen(accelerator)
    chosen = custom_suite(attack) if attack else find_suite(suite)
    leakage = {
        "ssim": max_ssim, "ssim_worst": max_ssim_worst, "psnr": max_psnr, "psnr_worst": max_psnr_worst
    }  # fmt: skip
    budget = _budget(
        max_edge_macs, max_edge_bytes, max_edge_memory, max_payload, max_latency
    ).model_copy(
        update={"accuracy_drop": max_accuracy_drop, "leakage": {k: v for k, v in leakage.items() if v is not None}}
    )  # fmt: skip
    budget = Budget.model_validate(budget.model_dump())
    granted = Knows.parse(knows)
    if attack:
        refuse_ungranted(attack, granted)
    check_extras(plotly=True)
    claim(out, resume=resume)
    way = [find_device(device) if device else None, find_device(server) if server else None]
    images = load_data(data, skip_broken=skip_broken)
    loaded = load_model(
        model, shape=images.shape, classes=len(images.classes), weights=weights, seed=seed, logits=logits
    )
    model = loaded.name
    tell([*images.remarks, *loaded.remarks])
    if weights is None:
        err.print("warning: no --weights: this plans for an untrained model", style="yellow")
    traced = trace(loaded.model, torch.zeros(2, *images.shape))
    finishing = Finishing(f"{out / 'plan.json'}", f"run `splitveil report {out}` for the page")
    with showing_progress(), computing.used(), resumable(out):
        found = plan(
            traced, images, model=model, weights=loaded.weights, budget=budget, out=out, cuts=_cuts(traced, cuts),
            defenses=defense or DEFENSES, codecs=codec or CODECS_TRIED, device=way[0], server=way[1],
            link=find_link(link) if link else None, suite=chosen, knows=granted, n=n, held_n=held_n,
            train_n=train_n, epochs=epochs, lr=lr or usual_rate(trained=True), audits=audits, minutes=minutes,
            zone=zone.value, seed=seed, resume=resume, workers=workers, threads=threads,
        )  # fmt: skip
        page = out / "plan.html"
        with finishing.writing(page):
            render_plan(found, page)
    if as_json:
        print_json(found.to_json())
    else:
        _show(found)
        if found.bundle:
            print(f"bundle: {out / found.bundle}")
        print(f"report: {page}")
    finishing.tell()
    if found.recommended is None:
        raise typer.Exit(INFEASIBLE if found.finished else UNDECIDED)


def _budget(macs: str | None, stored: str | None, memory: str | None, sent: str | None, late: str | None) -> "Budget":
    from splitveil.core.records import Budget
    from splitveil.lab.planning.budgets import parse_bytes, parse_count, parse_seconds

    return Budget(
        edge_macs=parse_count(macs, "--max-edge-macs") if macs else None,
        edge_bytes=parse_bytes(stored, "--max-edge-bytes") if stored else None,
        edge_memory=parse_bytes(memory, "--max-edge-memory") if memory else None,
        payload=parse_bytes(sent, "--max-payload") if sent else None,
        latency=parse_seconds(late, "--max-latency") if late else None,
    )


def _cuts(traced: "Traced", asked: str | None) -> list[str] | None:
    from splitveil.cli.audit import split_names

    if asked is None:
        return None
    if asked == "all":
        return [c.name for c in traced.cuts()]
    return split_names(asked, "--cuts")


def _show(found: "Plan") -> None:
    from splitveil.cli.console import out, show_table

    out.print(
        f"{found.model} on {found.data}: {found.tested or f'{found.accuracy:.2%}'} undefended; {found.seconds:.0f} s"
        + ("" if found.finished else ", stopped before the search had ended"),
        highlight=False,
    )
    out.print(found.reason, highlight=False, soft_wrap=True)
    names = ("accuracy", "accuracy_drop", "ssim", "ssim_worst", "psnr", "edge_macs", "edge_bytes", "payload", "latency")
    used = [name for name in names if any(name in c.figures for c in found.choices)]
    headers = ["cut", "defense", "codec", *(name.replace("_", " ") for name in used), ""]
    order = [c for i, c in enumerate(found.choices) if c.on_front or i in found.nearest or i == found.recommended]
    rest = [c for c in found.choices if c not in order]
    rows = [
        [c.cut, c.defense, c.codec, *(_cell(name, c.figures.get(name)) for name in used), _words(found, c)]
        for c in (order + rest)[:SHOWN]
    ]
    show_table("choices (~ estimated, not measured)", headers, rows, left=3)
    if len(found.choices) > len(rows):
        out.print(f"{len(found.choices) - len(rows)} more in plan.json", highlight=False)
    for other in found.alternatives:
        figures = ", ".join(f"{k.replace('_', ' ')} {_cell(k, f)}" for k, f in other.figures.items())
        out.print(f"instead: {other.words} {figures}", highlight=False, soft_wrap=True)
    for zone in found.zones:
        out.print(f"zone: {zone.words}", highlight=False, soft_wrap=True)
    for check in found.checks:
        out.print(
            f"{check.proxy} against measured {check.leakage} over {check.over}: "
            + (
                f"rank correlation {check.rho:.2f} [{check.interval[0]:.2f}, {check.interval[1]:.2f}] ({check.n})"
                if check.rho is not None and check.interval is not None
                else f"too few to tell ({check.n})"
            ),
            highlight=False,
        )
    for note in found.notes:
        out.print(f"note: {note}", highlight=False, soft_wrap=True)


def _words(found: "Plan", choice: "Choice") -> str:
    index = found.choices.index(choice)
    said = ["recommended"] * (index == found.recommended) + ["nearest"] * (index in found.nearest)
    said += ["front"] * choice.on_front
    for does, measured in (("breaks", True), ("would break", False)):
        names = [name for name in choice.broken if choice.figures[name].measured == measured]
        said += [f"{does} {', '.join(names)}"] if names else []
    return "; ".join(said)


def _cell(name: str, figure: "Figure | None") -> str:
    from splitveil.lab.planning.budgets import written

    if figure is None:
        return ""
    text = f"{figure.value:.2%}" if name == "accuracy" else written(name, figure.value)
    if name in ("accuracy", "accuracy_drop") and figure.interval:
        low, high = (end * (100 if name == "accuracy" else 1) for end in figure.interval)
        text += f" ({low:.2f} to {high:.2f})"
    return text if figure.measured else f"~{text}"
